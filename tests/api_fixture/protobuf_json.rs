//! The JSON that protobuf has of the serving API's messages, in which the goldens of gRPC are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder::pb::{
    serving::{
        EncodedValues, FeatureList, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
        get_online_features_request::Kind,
    },
    types::{Value, value::Val},
};
use prost::Message;
use serde_json::{Value as Json, json};

/// A value as the wire has it.
pub(crate) fn encoded(value: Val) -> Bytes {
    Value { val: Some(value) }.encode_to_vec().into()
}

/// The names of a response's vectors.
pub(crate) fn names(response: &GetOnlineFeaturesResponse) -> &[String] {
    &response.metadata.as_ref().unwrap().feature_names.as_ref().unwrap().val
}

/// Reads protobuf's JSON of a request.
pub(crate) fn request_of(json: &Json) -> GetOnlineFeaturesRequest {
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let kind = match (&json["features"]["val"], &json["feature_service"]) {
        (Json::Array(list), _) => {
            Some(Kind::Features(FeatureList { val: list.iter().map(text).collect() }))
        }
        (_, Json::String(service)) => Some(Kind::FeatureService(service.clone())),
        _ => None,
    };
    let value = |json: &Json| match json.as_object().unwrap().iter().next().unwrap() {
        (kind, value) if kind == "int64_val" => {
            encoded(Val::Int64Val(text(value).parse().unwrap()))
        }
        (kind, value) if kind == "int32_val" => {
            encoded(Val::Int32Val(value.as_i64().unwrap().try_into().unwrap()))
        }
        (_, value) => encoded(Val::StringVal(text(value))),
    };
    let columns = |json: &Json| {
        let columns = json.as_object().into_iter().flatten();
        columns
            .map(|(name, column)| {
                let val = column["val"].as_array().unwrap().iter().map(value).collect();
                (name.clone(), EncodedValues { val })
            })
            .collect()
    };
    GetOnlineFeaturesRequest {
        kind,
        entities: columns(&json["entities"]),
        request_context: columns(&json["request_context"]),
        full_feature_names: json["full_feature_names"].as_bool().unwrap_or_default(),
        include_feature_view_version_metadata: json["include_feature_view_version_metadata"]
            .as_bool()
            .unwrap_or_default(),
    }
}

/// Writes protobuf's JSON of a response, of the kinds of value that the goldens have.
pub(crate) fn to_json(response: &GetOnlineFeaturesResponse) -> Json {
    let value = |value: &Bytes| match Value::decode(value.clone()).unwrap().val {
        None => json!({}),
        Some(Val::Int64Val(number)) => json!({"int64_val": number.to_string()}),
        Some(Val::Int32Val(number)) => json!({"int32_val": number}),
        Some(Val::DoubleVal(number)) => json!({"double_val": number}),
        Some(Val::StringVal(text)) => json!({"string_val": text}),
        Some(other) => panic!("{other:?}"),
    };
    let status = |status: &i32| {
        ["INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"][*status as usize]
    };
    let time = |time: &prost_types::Timestamp| {
        jiff::Timestamp::new(time.seconds, time.nanos).unwrap().to_string()
    };
    let results: Vec<_> = response
        .results
        .iter()
        .map(|vector| {
            json!({
                "values": vector.values.iter().map(value).collect::<Vec<_>>(),
                "statuses": vector.statuses.iter().map(status).collect::<Vec<_>>(),
                "event_timestamps": vector.event_timestamps.iter().map(time).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"metadata": {"feature_names": {"val": names(response)}}, "results": results})
}

/// The vectors of a response by their names: Feast's order differs from run to run.
pub(crate) fn by_name(json: &Json) -> BTreeMap<&str, &Json> {
    let names = json["metadata"]["feature_names"]["val"].as_array().unwrap();
    let results = json["results"].as_array().unwrap();
    assert_eq!(names.len(), results.len());
    names.iter().map(|name| name.as_str().unwrap()).zip(results).collect()
}

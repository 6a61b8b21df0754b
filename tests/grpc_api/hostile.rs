//! Bytes that nobody should send: never a fault of the server, on either API.

use proptest::prelude::*;
use prost::Message;
use serde_json::Value as Json;
use tonic::Code;

use super::{SERVING, api_fixture::golden_server, request};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Text that looks like JSON for a request, with something wrong somewhere.
fn nearly_json() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just(r#"{"entities":{"item_id":[1,"#.to_owned()),
        Just(r#"]},"features":["short_ttl:v""#.to_owned()),
        Just(r#"],"feature_service":"fs_basic"}"#.to_owned()),
        Just(r#""\ud800""#.to_owned()),
        Just("\\u0000".to_owned()),
        Just("[".repeat(200)),
        Just("1e999".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just("null".to_owned()),
        Just("}".to_owned()),
        Just(",".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(word, 0..8).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_body_is_a_server_error(body in nearly_json(), cut in any::<proptest::sample::Index>()) {
        let server = golden_server();
        let whole = r#"{"entities":{"item_id":[1,null,"x"]},"features":["short_ttl:v"]}"#;
        let part = &whole[..cut.index(whole.len())];
        for body in [body, part.to_owned()] {
            let answer = block_on(server.post(body.clone(), &[]));
            prop_assert!(answer.status < 500, "{} for {body}", answer.status);
            prop_assert!(serde_json::from_slice::<Json>(&answer.body).is_ok());
        }
    }

    #[test]
    fn no_message_is_a_fault_of_the_server(
        bytes: Vec<u8>,
        cut in any::<proptest::sample::Index>(),
        key: Vec<u8>,
    ) {
        let server = golden_server();
        let mut whole = request(&["short_ttl:v"], &[1]);
        let part = whole.encode_to_vec();
        whole.entities.get_mut("item_id").unwrap().val = vec![key.into()];
        for message in [&bytes, &part[..cut.index(part.len())], &whole.encode_to_vec()] {
            let called = block_on(server.call(SERVING, message, &[]));
            let fault = matches!(called.code, Code::Internal | Code::Unknown | Code::DataLoss);
            prop_assert!(!fault, "{called:?} for {message:x?}");
        }
    }
}

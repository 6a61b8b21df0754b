//! `online_store` of type `dynamodb`.

use std::time::Duration;

use super::{online_store::StoreContext, section::Section};
use crate::{
    config::tree::Value,
    store::{DynamoDbSettings, StoreSettings, TableNameTemplate},
};

const OPTIONS: &[&str] = &[
    "type",
    "batch_size",
    "endpoint_url",
    "region",
    "table_name_template",
    "consistent_reads",
    "warmup_connections",
    "tags",
    "session_based_auth",
    "max_read_workers",
    "max_pool_connections",
    "keepalive_timeout",
    "connect_timeout",
    "read_timeout",
    "total_max_retry_attempts",
    "retry_mode",
];

/// Options that say how Feast waits and repeats, and what larder has for them.
const NOT_USED: &[(&str, &str)] = &[
    ("max_read_workers", "`max_pool_connections` bounds the calls under way"),
    ("keepalive_timeout", "connections that are not in use are kept for 90s"),
    ("read_timeout", "larder's `store.timeout` says how long a read may take"),
    ("total_max_retry_attempts", "larder repeats no failed call; `store.breaker` paces them"),
    ("retry_mode", "larder repeats no failed call; `store.breaker` paces them"),
];

/// The most keys that DynamoDB takes in one call.
const MAX_KEYS: i128 = 100;
/// Feast's default of `max_pool_connections`.
const POOL: usize = 50;

pub(super) fn read(mut section: Section<'_>, context: &StoreContext<'_>) -> Option<StoreSettings> {
    section.known_options(OPTIONS);
    for (option, instead) in NOT_USED {
        if section.get(option).is_some() {
            section.warn(option, format!("is not used here: {instead}"));
        }
    }
    // Each says what is wrong with it before any is missed.
    let region = region(&mut section, context);
    let endpoint_url = endpoint_url(&mut section);
    let table_name_template = table_name_template(&mut section);
    let consistent_reads = section.flag("consistent_reads");
    let batch_size = batch_size(&mut section);
    let max_calls = number(&mut section, "max_pool_connections", 1..=1000);
    let connect_timeout = seconds(&mut section, "connect_timeout");
    Some(StoreSettings::DynamoDb(DynamoDbSettings {
        region: region?,
        endpoint_url: endpoint_url?,
        table_name_template: table_name_template?,
        consistent_reads: consistent_reads?,
        batch_size: batch_size?,
        max_calls: max_calls?.unwrap_or(POOL),
        connect_timeout: connect_timeout?.unwrap_or(context.store.connect_timeout.0),
    }))
}

/// Feast wants it in its file; where it is not, the variables of AWS's tools count, as elsewhere.
fn region(section: &mut Section<'_>, context: &StoreContext<'_>) -> Option<String> {
    let region = section.text("region")?.or_else(|| {
        let variable =
            |name: &&str| context.surroundings.environment.get(*name).map(String::as_str);
        ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().filter_map(variable).find(|it| !it.is_empty())
    });
    match region {
        None | Some("") => {
            let message = "is missing: name the AWS region here, as in `region: eu-west-1`, or in \
                           the variable AWS_REGION or AWS_DEFAULT_REGION";
            section.error("region", message);
            None
        }
        // It becomes part of a host name.
        Some(region) if region.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') => {
            Some(region.to_owned())
        }
        Some(_) => section.expected("region", "an AWS region, such as eu-west-1"),
    }
}

fn endpoint_url(section: &mut Section<'_>) -> Option<Option<String>> {
    let Some(url) = section.text("endpoint_url")?.filter(|url| !url.is_empty()) else {
        return Some(None);
    };
    let parsed = url.parse::<http::Uri>().ok();
    let fits = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none()
    });
    if fits {
        Some(Some(url.to_owned()))
    } else {
        section.expected("endpoint_url", "a URL such as http://localhost:8000")
    }
}

fn table_name_template(section: &mut Section<'_>) -> Option<TableNameTemplate> {
    const OPTION: &str = "table_name_template";
    let Some(text) = section.text(OPTION)? else {
        return Some(TableNameTemplate::default());
    };
    match TableNameTemplate::parse(text) {
        Ok(template) => {
            if !template.tells_views_apart() {
                let message = "has no `{table_name}`: all feature views share a table, and \
                               overwrite each other's rows of an entity";
                section.warn(OPTION, message);
            }
            Some(template)
        }
        Err(error) => {
            section.error(OPTION, format!("cannot be read: {error}"));
            None
        }
    }
}

fn batch_size(section: &mut Section<'_>) -> Option<usize> {
    const OPTION: &str = "batch_size";
    match section.get(OPTION).map(|node| &node.value) {
        Some(Value::Integer(size)) if *size > MAX_KEYS => {
            section.warn(OPTION, format!("is {size}; DynamoDB takes {MAX_KEYS} keys at most"));
            Some(MAX_KEYS as usize)
        }
        _ => Some(number(section, OPTION, 1..=MAX_KEYS)?.unwrap_or(MAX_KEYS as usize)),
    }
}

/// A whole number within bounds, if it is there.
fn number(
    section: &mut Section<'_>,
    name: &str,
    bounds: std::ops::RangeInclusive<i128>,
) -> Option<Option<usize>> {
    match section.get(name).map(|node| &node.value) {
        None => Some(None),
        Some(Value::Integer(number)) if bounds.contains(number) => {
            Some(usize::try_from(*number).ok())
        }
        Some(_) => {
            let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            section.expected(name, &what)
        }
    }
}

/// Seconds, if they are there.
fn seconds(section: &mut Section<'_>, name: &str) -> Option<Option<Duration>> {
    let seconds = match section.get(name).map(|node| &node.value) {
        None => return Some(None),
        Some(Value::Integer(seconds)) => *seconds as f64,
        Some(Value::Float(seconds)) => *seconds,
        Some(_) => f64::NAN,
    };
    if (0.001..=3600.0).contains(&seconds) {
        Some(Some(Duration::from_secs_f64(seconds)))
    } else {
        section.expected(name, "seconds, more than 0 and 3600 at most")
    }
}

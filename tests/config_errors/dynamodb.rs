//! `online_store` of type `dynamodb`.

use std::time::Duration;

use larder::{
    config::Config,
    store::{DynamoDbSettings, StoreSettings, TableNameTemplate},
};

use crate::repo::{MINIMAL, Repo};

fn dynamodb(config: &Config) -> DynamoDbSettings {
    match &config.stores[0].settings {
        StoreSettings::DynamoDb(settings) => settings.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dynamodb_is_read_from_feasts_options() {
    let file = include_str!("../golden/feast/yaml/feature_store.dynamodb.yaml");
    let config = Repo::new(file, None).load();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(!dynamodb(&config).region.is_empty());
    assert!(config.stores[0].settings.keeps_versions());

    let text = format!(
        "{MINIMAL}online_store:\n  type: feast.infra.online_stores.dynamodb.DynamoDBOnlineStore\n  \
         region: eu-west-1\n  endpoint_url: http://localhost:8000\n  \
         table_name_template: 'x-{{table_name}}'\n  consistent_reads: true\n  batch_size: 40\n  \
         max_pool_connections: 7\n  connect_timeout: 1.5\n  session_based_auth: true\n  \
         warmup_connections: true\n  tags: {{team: t}}\n"
    );
    let config = Repo::new(&text, None).load();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let expected = DynamoDbSettings {
        region: "eu-west-1".into(),
        endpoint_url: Some("http://localhost:8000".into()),
        table_name_template: TableNameTemplate::parse("x-{table_name}").unwrap(),
        consistent_reads: true,
        batch_size: 40,
        max_calls: 7,
        connect_timeout: Duration::from_millis(1500),
    };
    assert_eq!(dynamodb(&config), expected);

    let region = |name: &str| {
        let text = format!("{MINIMAL}online_store: {{type: dynamodb}}\n");
        dynamodb(&Repo::new(&text, None).variable(name, "us-east-1").load()).region
    };
    assert_eq!([region("AWS_REGION"), region("AWS_DEFAULT_REGION")], ["us-east-1", "us-east-1"]);
}

#[test]
fn options_of_dynamodb_that_are_wrong_are_errors_and_those_that_are_not_used_warnings() {
    let store = |options: &str| {
        let text = format!("{MINIMAL}online_store: {{type: dynamodb, {options}}}\n");
        Repo::new(&text, None)
    };
    for (options, expected) in [
        ("", ["AWS_REGION", "AWS_DEFAULT_REGION"].as_slice()),
        ("region: 'a/b'", &["region: is the text `a/b`; expected an AWS region"]),
        ("region: x, endpoint_url: localhost:8000", &["endpoint_url", "expected a URL"]),
        ("region: x, table_name_template: '{table}'", &["`{table}` is neither"]),
        ("region: x, consistent_reads: 'yes'", &["consistent_reads", "true or false"]),
        ("region: x, batch_size: 0", &["expected a whole number from 1 to 100"]),
        ("region: x, max_pool_connections: 0", &["expected a whole number from 1 to 1000"]),
        ("region: x, connect_timeout: -1", &["expected seconds"]),
        ("region: x, endpoint: y", &["endpoint: no such option", "endpoint_url"]),
    ] {
        let errors = store(options).errors();
        assert_eq!(errors.len(), 1, "{options}: {errors:?}");
        assert!(errors[0].starts_with("feature_store.yaml:3:"), "{errors:?}");
        assert!(expected.iter().all(|part| errors[0].contains(part)), "{options}: {errors:?}");
    }
    let wrong = store("batch_size: x, consistent_reads: 1, table_name_template: '{'");
    assert_eq!(wrong.errors().len(), 4, "all that is wrong is said at once");
    for (options, expected) in [
        ("read_timeout: 1", "store.timeout"),
        ("retry_mode: legacy", "repeats no failed call"),
        ("total_max_retry_attempts: 9", "repeats no failed call"),
        ("max_read_workers: 9", "max_pool_connections"),
        ("keepalive_timeout: 9", "kept for 90s"),
        ("batch_size: 101", "100 keys at most"),
        ("table_name_template: '{project}'", "has no `{table_name}`"),
    ] {
        let warnings = store(&format!("region: x, {options}")).load().warnings;
        assert_eq!(warnings.len(), 1, "{options}: {warnings:?}");
        assert!(warnings[0].to_string().contains(expected), "{options}: {warnings:?}");
    }
}

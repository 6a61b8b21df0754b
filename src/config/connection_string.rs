//! Feast's connection strings of Redis (`RedisOnlineStore._parse_connection_string`). Pure.

use serde_json::Value;

/// `host:port,host:port,option=value`, taken apart as Feast does it: nothing is trimmed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConnectionString {
    /// Hosts, and their ports as text, where there is one.
    pub(super) nodes: Vec<(String, Option<String>)>,
    /// Options of redis-py. A value that is JSON is taken as that.
    pub(super) options: Vec<(String, Value)>,
}

impl ConnectionString {
    /// Takes any text apart; what nodes and options mean is checked by whoever uses them.
    pub(super) fn parse(text: &str) -> Self {
        let (mut nodes, mut options) = (Vec::new(), Vec::new());
        for token in text.split(',') {
            if let Some((name, value)) = token.split_once('=') {
                let value = match serde_json::from_str(value) {
                    // A number with more digits than fit would lose some: it may be a password.
                    Ok(Value::Number(number)) if number.is_f64() && is_integer(value) => {
                        value.into()
                    }
                    Ok(value) => value,
                    Err(_) => value.into(),
                };
                options.push((name.to_owned(), value));
            } else {
                let mut parts = token.split(':');
                let host = parts.next().unwrap_or_default().to_owned();
                nodes.push((host, parts.next().map(str::to_owned)));
            }
        }
        Self { nodes, options }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feast_takes_these_apart_as_recorded() {
        let golden = include_str!("../../tests/golden/feast/config.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let cases = golden["redis_connection_string"].as_object().unwrap();
        assert!(cases.len() > 10);
        for (text, expected) in cases {
            let parsed = ConnectionString::parse(text);
            let nodes: Vec<_> = expected[0]
                .as_array()
                .unwrap()
                .iter()
                .map(|node| {
                    let text = |key: &str| node[key].as_str().map(str::to_owned);
                    (text("host").unwrap(), text("port"))
                })
                .collect();
            assert_eq!(parsed.nodes, nodes, "{text}");
            let options: serde_json::Map<_, _> = parsed.options.into_iter().collect();
            assert_eq!(Value::Object(options), expected[1], "{text}");
        }
    }
}

//! What sentinels say of a master and its replicas. Pure.

use std::collections::HashMap;

use redis::Value;

use crate::store::redis::{RedisAddress, error::Fault, role::text, shard::address};

/// A master, as a sentinel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) address: RedisAddress,
    /// Counts failovers: of two answers, the one with the higher number is the newer one.
    pub(super) epoch: u64,
    /// How many sentinels this one knows, besides itself.
    pub(super) other_sentinels: u64,
}

/// More replicas than a master can serve.
const MAX_REPLICAS: usize = 256;

/// Of a reply to `SENTINEL MASTER`, names and values in turn.
pub(super) fn master(reply: &Value, asked: &RedisAddress) -> Result<Master, Fault> {
    let fields = fields(reply).ok_or(Fault::Protocol("no description of a master"))?;
    let number = |name: &str| fields.get(name).and_then(|text| text.parse().ok());
    Ok(Master {
        address: address_of(&fields, asked).ok_or(Fault::Protocol("no address of a master"))?,
        epoch: number("config-epoch").unwrap_or(0),
        other_sentinels: number("num-other-sentinels").unwrap_or(0),
    })
}

/// Of a reply to `SENTINEL REPLICAS`: those that the sentinel can reach, in an order of their own.
pub(super) fn replicas(reply: &Value, asked: &RedisAddress) -> Result<Vec<RedisAddress>, Fault> {
    let Value::Array(replicas) = reply else {
        return Err(Fault::Protocol("no array of replicas"));
    };
    let reachable = |replica: &Value| {
        let fields = fields(replica)?;
        let flags = fields.get("flags").copied().unwrap_or_default();
        let is_down =
            flags.split(',').any(|flag| ["s_down", "o_down", "disconnected"].contains(&flag));
        if is_down { None } else { address_of(&fields, asked) }
    };
    let mut replicas: Vec<_> = replicas.iter().filter_map(reachable).collect();
    replicas.sort_unstable();
    replicas.dedup();
    replicas.truncate(MAX_REPLICAS);
    Ok(replicas)
}

fn address_of(fields: &HashMap<&str, &str>, asked: &RedisAddress) -> Option<RedisAddress> {
    let port = fields.get("port")?.parse().ok().filter(|port| *port != 0)?;
    // A master is never where its sentinel is for want of a better word.
    let host = fields.get("ip").filter(|host| !host.is_empty())?;
    address(host, port, asked)
}

fn fields(reply: &Value) -> Option<HashMap<&str, &str>> {
    match reply {
        Value::Array(parts) => Some(
            parts
                .chunks_exact(2)
                .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
                .collect(),
        ),
        Value::Map(pairs) => Some(
            pairs.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> RedisAddress {
        RedisAddress { host: "asked".into(), port: 1 }
    }

    fn reply(fields: &[(&str, &str)]) -> Value {
        let text = |text: &str| Value::BulkString(text.into());
        Value::Array(fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect())
    }

    #[test]
    fn a_master_is_where_the_sentinel_says() {
        let fields = [
            ("name", "m"),
            ("ip", "10.0.0.1"),
            ("port", "6379"),
            ("flags", "master"),
            ("config-epoch", "7"),
            ("num-other-sentinels", "2"),
        ];
        let found = master(&reply(&fields), &asked()).unwrap();
        assert_eq!(found.address.to_string(), "10.0.0.1:6379");
        assert_eq!((found.epoch, found.other_sentinels), (7, 2));
        let bare = master(&reply(&fields[..3]), &asked()).unwrap();
        assert_eq!((bare.epoch, bare.other_sentinels), (0, 0));
    }

    #[test]
    fn replicas_that_are_down_are_left_out() {
        let replica = |port, flags| reply(&[("ip", "h"), ("port", port), ("flags", flags)]);
        let all = Value::Array(vec![
            replica("3", "slave"),
            replica("2", "slave,s_down,disconnected"),
            replica("1", "slave"),
            replica("1", "slave"),
            replica("0", "slave"),
            Value::Nil,
        ]);
        let found = replicas(&all, &asked()).unwrap();
        assert_eq!(found.iter().map(|at| at.port).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_no_master_is_refused() {
        for odd in [
            Value::Nil,
            Value::Okay,
            Value::Array(vec![]),
            reply(&[("ip", "h")]),
            reply(&[("ip", ""), ("port", "1")]),
            reply(&[("ip", "?"), ("port", "1")]),
            reply(&[("ip", "h"), ("port", "65536")]),
            reply(&[("ip", "h"), ("port", "0")]),
        ] {
            assert!(master(&odd, &asked()).is_err(), "{odd:?}");
        }
        assert!(replicas(&Value::Nil, &asked()).is_err());
    }

    proptest! {
        #[test]
        fn any_fields_are_a_master_or_refused(
            fields in proptest::collection::vec(
                ("(ip|port|flags|config-epoch|x)", "\\PC{0,12}|[0-9]{0,22}"), 0..9),
            bytes in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let Value::Array(mut parts) = reply(&fields) else { unreachable!() };
            if let Ok(found) = master(&Value::Array(parts.clone()), &asked()) {
                prop_assert!(found.address.port > 0 && !found.address.host.is_empty());
            }
            parts.push(Value::BulkString(bytes));
            let _ = master(&Value::Array(parts.clone()), &asked());
            let _ = replicas(&Value::Array(vec![Value::Array(parts)]), &asked());
        }
    }
}

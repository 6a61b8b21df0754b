//! Which servers of a cluster hold which slots, and which slot a key is in. Pure.

use std::{collections::HashMap, fmt};

use redis::Value;

use super::super::{RedisAddress, error::Fault, node::MAX_SERVERS, role::text, shard::address};

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16384;

/// A slot without servers.
const NOBODY: u16 = u16::MAX;

/// Who holds which slots: equal to another that says the same, in whatever order it was told.
#[derive(PartialEq, Eq)]
pub(super) struct SlotMap {
    /// For each slot the place of its servers, or `NOBODY`.
    owners: Box<[u16]>,
    /// Servers that hold the same slots.
    pub(super) shards: Vec<Servers>,
}

/// Servers that hold the same slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Servers {
    /// None if the cluster does not say where it is.
    pub(super) master: Option<RedisAddress>,
    pub(super) replicas: Vec<RedisAddress>,
}

impl SlotMap {
    /// Of a reply to `CLUSTER SLOTS` by the node at `asked`:
    ///
    /// ```text
    /// [[first, last, [master's host, port, ...], [replica's host, port, ...] ...] ...]
    /// ```
    ///
    /// A server whose host is not known is left out, as are replicas that nobody wants; what is no
    /// such reply is refused.
    pub(super) fn parse(
        reply: &Value,
        asked: &RedisAddress,
        wants_replicas: bool,
    ) -> Result<Self, Fault> {
        let Value::Array(ranges) = reply else {
            return Err(Fault::Protocol("no array for CLUSTER SLOTS"));
        };
        if ranges.len() > SLOTS {
            return Err(Fault::Protocol("more ranges of slots than there are slots"));
        }
        let mut map = Self { owners: vec![NOBODY; SLOTS].into(), shards: Vec::new() };
        let mut places = HashMap::new();
        let mut servers = 0;
        let ranges = ranges.iter().map(|range| parse_range(range, asked));
        let mut ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        ranges.sort_by_key(|(first, ..)| *first);
        for (first, last, mut holders) in ranges {
            if !wants_replicas {
                holders.replicas.clear();
            }
            let place = match places.get(&holders) {
                Some(place) => *place,
                None => {
                    servers += 1 + holders.replicas.len();
                    if servers > MAX_SERVERS {
                        return Err(Fault::TooManyNodes(MAX_SERVERS));
                    }
                    map.shards.push(holders.clone());
                    let place = u16::try_from(map.shards.len() - 1).expect("no more than ranges");
                    places.insert(holders, place);
                    place
                }
            };
            map.owners[first..=last].fill(place);
        }
        Ok(map)
    }

    /// The place among `shards` of those that hold a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        let place = self.owners.get(usize::from(slot))?;
        (*place != NOBODY).then_some(usize::from(*place))
    }

    /// Whether any slot is held by anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotMap").field(&self.shards).finish()
    }
}

fn parse_range(range: &Value, asked: &RedisAddress) -> Result<(usize, usize, Servers), Fault> {
    const WRONG: Fault = Fault::Protocol("a range of slots that is none");
    let Value::Array(parts) = range else { return Err(WRONG) };
    let [Value::Int(first), Value::Int(last), servers @ ..] = &parts[..] else {
        return Err(WRONG);
    };
    let slot = |slot: &i64| usize::try_from(*slot).ok().filter(|slot| *slot < SLOTS);
    let (Some(first), Some(last)) = (slot(first), slot(last)) else { return Err(WRONG) };
    if first > last {
        return Err(WRONG);
    }
    let mut servers = servers.iter().map(|server| parse_server(server, asked));
    let master = servers.next().transpose()?.flatten();
    let replicas: Result<Vec<_>, _> = servers.filter_map(Result::transpose).collect();
    let mut replicas = replicas?;
    replicas.sort_unstable();
    replicas.dedup();
    Ok((first, last, Servers { master, replicas }))
}

/// None if it is a server whose address is not known.
fn parse_server(server: &Value, asked: &RedisAddress) -> Result<Option<RedisAddress>, Fault> {
    const WRONG: Fault = Fault::Protocol("a server of a slot that is none");
    let Value::Array(parts) = server else { return Err(WRONG) };
    let [host, Value::Int(port), ..] = &parts[..] else { return Err(WRONG) };
    let host = match host {
        Value::Nil => "",
        host => text(host).ok_or(WRONG)?,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port != 0);
    Ok(port.and_then(|port| address(host, port, asked)))
}

/// The slot of a key: a checksum of what is in its first braces, or of all of it if there is
/// nothing in any.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let hashed = || {
        let open = key.iter().position(|byte| *byte == b'{')?;
        let tag = &key[open + 1..];
        let tag = &tag[..tag.iter().position(|byte| *byte == b'}')?];
        (!tag.is_empty()).then_some(tag)
    };
    crc16(hashed().unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |crc, byte| (crc << 8) ^ CRC_TABLE[usize::from((crc >> 8) ^ u16::from(*byte))])
}

const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> RedisAddress {
        RedisAddress { host: "asked".into(), port: 1 }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn server(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, servers: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], servers].concat())
    }

    fn parse(ranges: Vec<Value>) -> Result<SlotMap, String> {
        SlotMap::parse(&Value::Array(ranges), &asked(), true).map_err(|fault| fault.to_string())
    }

    fn master(map: &SlotMap, slot: u16) -> Option<String> {
        Some(map.shards[map.owner(slot)?].master.as_ref()?.to_string())
    }

    #[test]
    fn keys_are_in_the_slots_that_redis_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"a{user1000}b{other}"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_ne!(slot_of(b"foo{}{bar}"), slot_of(b"bar"), "empty braces do not count");
        assert_ne!(slot_of(b"foo{bar"), slot_of(b"bar"), "nor does one that is not closed");
    }

    #[test]
    fn each_slot_has_its_servers() {
        let map = parse(vec![
            range(0, 99, vec![server(bulk("10.0.0.1"), 1), server(bulk("10.0.0.2"), 2)]),
            range(200, 299, vec![server(bulk("10.0.0.3"), 3)]),
            range(300, 16383, vec![server(bulk("10.0.0.1"), 1), server(bulk("10.0.0.2"), 2)]),
        ])
        .unwrap();
        assert_eq!(map.shards.len(), 2);
        assert_eq!(map.shards[0].replicas[0].to_string(), "10.0.0.2:2");
        for (slot, expected) in [
            (0, Some("10.0.0.1:1")),
            (99, Some("10.0.0.1:1")),
            (100, None),
            (200, Some("10.0.0.3:3")),
            (16383, Some("10.0.0.1:1")),
            (16384, None),
        ] {
            assert_eq!(master(&map, slot).as_deref(), expected, "{slot}");
        }
    }

    #[test]
    fn the_order_in_which_a_map_is_told_does_not_matter() {
        let servers = |ports: [i64; 4]| ports.map(|port| server(bulk("h"), port)).to_vec();
        let ranges = |replicas: [i64; 3], others: [i64; 3]| {
            let ([a, b, c], [d, e, f]) = (replicas, others);
            vec![range(0, 99, servers([1, a, b, c])), range(100, 199, servers([2, d, e, f]))]
        };
        let (one, mut other) = (ranges([3, 4, 5], [6, 7, 8]), ranges([5, 3, 4], [8, 7, 6]));
        other.reverse();
        assert_eq!(parse(one.clone()), parse(other));
        assert_ne!(parse(one.clone()), parse(ranges([3, 4, 9], [6, 7, 8])));
        let masters = |ranges| SlotMap::parse(&Value::Array(ranges), &asked(), false).ok();
        assert_eq!(masters(one), masters(ranges([3, 4, 9], [6, 7, 8])));
    }

    #[test]
    fn a_host_that_is_not_said_is_the_one_that_was_asked() {
        for host in [Value::Nil, bulk("")] {
            let map = parse(vec![range(0, 1, vec![server(host, 6380)])]).unwrap();
            assert_eq!(master(&map, 0).unwrap(), "asked:6380");
        }
    }

    #[test]
    fn a_master_that_is_not_known_leaves_the_rest_of_the_map() {
        let map = parse(vec![
            range(0, 9, vec![server(bulk("?"), 6379), server(bulk("10.0.0.2"), 2)]),
            range(10, 19, vec![server(bulk("10.0.0.1"), 0)]),
            range(20, 29, vec![server(bulk("10.0.0.1"), 1), server(bulk("?"), 6379)]),
        ])
        .unwrap();
        assert_eq!((master(&map, 0), master(&map, 10)), (None, None));
        assert_eq!(map.shards[0].replicas.len(), 1);
        assert_eq!(master(&map, 20).unwrap(), "10.0.0.1:1");
        assert!(map.shards[map.owner(20).unwrap()].replicas.is_empty());
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let one = || vec![server(bulk("h"), 1)];
        for ranges in [
            vec![range(-1, 5, one())],
            vec![range(0, 16384, one())],
            vec![range(7, 5, one())],
            vec![range(i64::MIN, i64::MAX, one())],
            vec![Value::Nil],
            vec![Value::Array(vec![])],
            vec![range(0, 5, vec![Value::Int(3)])],
            vec![range(0, 5, vec![Value::Array(vec![bulk("h")])])],
            vec![range(0, 5, one()); SLOTS + 1],
        ] {
            assert!(parse(ranges.clone()).is_err(), "{ranges:?}");
        }
        assert!(SlotMap::parse(&Value::Okay, &asked(), true).is_err());
        let many = |count| (0..count).map(|port| server(bulk("h"), port)).collect();
        assert!(parse(vec![range(0, 5, many(5000))]).is_err());
        assert!(parse(vec![]).unwrap().is_empty());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            (-2..16390_i64).prop_map(Value::Int),
            any::<i64>().prop_map(Value::Int),
            "[a-z?]{0,3}".prop_map(|text| Value::BulkString(text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::BulkString),
            "[a-z]{0,3}".prop_map(Value::SimpleString),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            proptest::collection::vec(inner, 0..6).prop_map(Value::Array)
        })
    }

    proptest! {
        #[test]
        fn any_reply_is_a_map_or_refused(reply in any_value()) {
            if let Ok(map) = SlotMap::parse(&reply, &asked(), true) {
                for slot in 0..SLOTS as u16 {
                    prop_assert!(map.owner(slot).is_none_or(|owner| owner < map.shards.len()));
                }
            }
        }

        #[test]
        fn any_ranges_are_a_map_or_refused(
            ranges in proptest::collection::vec(
                (-2..16390_i64, -2..16390_i64, proptest::collection::vec(any_value(), 0..3)), 0..6),
        ) {
            let ranges = ranges.into_iter().map(|(first, last, more)| {
                range(first, last, [vec![server(bulk("h"), 1)], more].concat())
            });
            let _ = parse(ranges.collect());
        }

        #[test]
        fn any_key_has_a_slot(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(usize::from(slot_of(&key)) < SLOTS);
        }
    }
}

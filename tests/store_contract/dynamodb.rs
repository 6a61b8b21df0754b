//! DynamoDB, on Amazon's own emulator; and before it, what the emulator never does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use larder::{
    layout::dynamodb::entity_id,
    model::{Cell, EntityKey, FeatureRow, FeatureView, KeyEncoding},
    store::{
        DynamoDbSettings, OnlineStore, StoreError, TableNameTemplate, ViewKeys,
        dynamodb::DynamoDbStore,
    },
};
use serde_json::json;
use tokio::task::block_in_place;

use crate::{
    contract_tests,
    dynamodb_front::{Deed, Front},
    dynamodb_server::{ask, create_table, put_item, unique},
    golden::{self, entity_key, expected_rows, expected_views, hex, values, view},
    world::{Cells, ONE, World, ab, key, number, patient, read, until, until_it_answers, within},
};

contract_tests!(DynamoDbWorld::new().await);

/// Tables of one test in the emulator that all share, and a front of its own.
struct DynamoDbWorld {
    front: Front,
    prefix: String,
    store: DynamoDbStore,
    tables: BTreeSet<String>,
}

impl DynamoDbWorld {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut DynamoDbSettings)) -> Self {
        let (front, prefix) = (Front::start().await, unique("test"));
        let mut settings = settings(front.port, &format!("{prefix}.{{table_name}}"));
        change(&mut settings);
        let store = DynamoDbStore::with_credentials(settings, anybody());
        Self { front, prefix, store, tables: BTreeSet::new() }
    }

    fn table(&self, view: &FeatureView) -> String {
        format!("{}.{}", self.prefix, view.versioned_name())
    }

    fn create(&mut self, view: &FeatureView) {
        let table = self.table(view);
        if self.tables.insert(table.clone()) {
            create_table(&table);
        }
    }
}

impl World for DynamoDbWorld {
    fn store(&self) -> &dyn OnlineStore {
        &self.store
    }

    fn put(&mut self, view: &FeatureView, key: &EntityKey, cells: Cells<'_>, seconds: i64) {
        block_in_place(|| {
            self.create(view);
            let time = jiff::Timestamp::from_second(seconds).unwrap();
            let time = time.to_string().replace('T', " ").replace('Z', "+00:00");
            put_item(&self.table(view), &entity_id(key), &time, cells);
        });
    }

    fn stop(&mut self) {
        block_in_place(|| tokio::runtime::Handle::current().block_on(self.front.stop()));
    }

    fn start(&mut self) {
        self.front.restart();
    }
}

fn settings(port: u16, template: &str) -> DynamoDbSettings {
    DynamoDbSettings {
        region: "eu-west-1".into(),
        endpoint_url: Some(format!("http://127.0.0.1:{port}")),
        table_name_template: TableNameTemplate::parse(template).unwrap(),
        consistent_reads: false,
        batch_size: 100,
        max_calls: 50,
        connect_timeout: Duration::from_secs(2),
    }
}

fn anybody() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("larder", "secret", None, None, "test"))
}

type Rows = [Result<Option<FeatureRow>, StoreError>];

/// How many rows there are, how many are known not to be, and the kinds of errors.
fn tally(rows: &Rows) -> (usize, usize, BTreeMap<&'static str, usize>) {
    let (mut found, mut absent, mut errors) = (0, 0, BTreeMap::new());
    for row in rows {
        match row {
            Ok(Some(_)) => found += 1,
            Ok(None) => absent += 1,
            Err(error) => *errors.entry(error.kind()).or_default() += 1,
        }
    }
    (found, absent, errors)
}

/// Whether a row was throttled to the end, unless the last call was still under way then.
fn is_throttled(row: &Result<Option<FeatureRow>, StoreError>) -> bool {
    match row {
        Err(StoreError::TimedOut) => true,
        Err(error @ StoreError::Unavailable(_)) => error.chain().contains("throttles"),
        _ => false,
    }
}

/// A view with `count` entities, of which all have a row.
fn filled(world: &mut DynamoDbWorld, name: &str, count: u16) -> (FeatureView, Vec<EntityKey>) {
    let view = ab(name);
    let keys: Vec<_> = (0..count).map(|entity| key(entity.to_be_bytes())).collect();
    for (entity, key) in keys.iter().enumerate() {
        world.put(&view, key, &[("a", &number(entity as u8 & 0x7f))], 1);
    }
    (view, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_that_feast_wrote_is_read() {
    let world = DynamoDbWorld::new().await;
    let dump = golden::json("feast/dynamodb.json");
    for (table, content) in dump["tables"].as_object().unwrap() {
        copy_table(&table.replace("golden.", &format!("{}.", world.prefix)), content);
    }
    let (views, rows) = (expected_views(), expected_rows());
    // All views together, each with all keys of its rows and one that it does not have.
    let keys_of = |name: &String| {
        let rows = rows.iter().filter(|row| row.view == *name);
        rows.map(|row| row.key.clone()).chain([key("gone")]).collect::<Vec<_>>()
    };
    let keys: Vec<_> = views.keys().map(keys_of).collect();
    let reads: Vec<_> =
        views.values().zip(&keys).map(|(view, keys)| ViewKeys { view, keys }).collect();
    let read = world.store.read(&reads, patient()).await;
    let mut found = 0;
    for ((view, keys), rows_read) in views.values().zip(&keys).zip(read) {
        for (key, row) in keys.iter().zip(rows_read) {
            let expected = rows.iter().find(|row| row.view == *view.name && row.key == *key);
            let row = row.unwrap();
            let values = row.as_ref().map(|row| values(view, row));
            assert_eq!(values, expected.map(|row| row.values.clone()), "{}", view.name);
            let seconds = row.map(|row| row.event_timestamp().seconds);
            assert_eq!(seconds, expected.map(|row| row.seconds));
            found += usize::from(expected.is_some());
        }
    }
    assert_eq!((found, world.front.calls().len()), (17, 1), "and all of it in one call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_a_view_are_read_apart() {
    let world = DynamoDbWorld::new().await;
    let tables = golden::json("feast/dynamodb.json")["versioned"]["tables"].clone();
    for (table, content) in tables.as_object().unwrap() {
        copy_table(&table.replace("golden.", &format!("{}.", world.prefix)), content);
    }
    let entity = &tables["golden.vview"]["items"][0]["entity"];
    let keys = [entity_key(KeyEncoding::V3, entity).unwrap()];
    let views = [None, Some(1), Some(2)].map(|version| view("golden", "vview", version, ["a"]));
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    for (rows, expected) in rows.iter().zip([100, 101, 102]) {
        let row = rows[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(row.cell(0), Cell::Value(&[0x20, expected]));
    }
}

fn copy_table(table: &str, content: &serde_json::Value) {
    block_in_place(|| create_table(table));
    for item in content["items"].as_array().unwrap() {
        let item = &item["item"];
        let values: Vec<_> = item["values"]["M"].as_object().unwrap().iter().collect();
        let values: Vec<_> = values.iter().map(|(name, it)| (*name, hex(&it["B_hex"]))).collect();
        let cells: Vec<_> = values.iter().map(|(name, it)| (name.as_str(), &it[..])).collect();
        let text = |attribute: &str| item[attribute]["S"].as_str().unwrap();
        block_in_place(|| put_item(table, text("entity_id"), text("event_ts"), &cells));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_fails_its_view_only() {
    let mut world = DynamoDbWorld::new().await;
    let keys = [key("1"), key("2")];
    let views = ["there", "gone", "too"].map(ab);
    world.put(&views[0], &keys[0], &[("a", ONE)], 1);
    world.put(&views[2], &keys[1], &[("a", ONE)], 1);
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    for calls in [4, 2] {
        world.front.behave(|_| Deed::Pass);
        let rows = world.store.read(&reads, patient()).await;
        assert!(matches!(rows[0][..], [Ok(Some(_)), Ok(None)]), "{rows:?}");
        assert!(matches!(rows[2][..], [Ok(None), Ok(Some(_))]), "{rows:?}");
        let error = rows[1][0].as_ref().unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{rows:?}");
        let chain = error.chain();
        assert!(chain.contains("ResourceNotFoundException"), "{chain}");
        assert!(chain.contains(&world.table(&views[1])), "{chain}");
        // Once it is known, it is asked for alone from the start.
        assert_eq!(world.front.calls().len(), calls);
    }
    world.create(&views[1]);
    until("the table is read, and then together with the others", || async {
        world.front.behave(|_| Deed::Pass);
        let rows = world.store.read(&reads, patient()).await;
        rows[1].iter().all(Result::is_ok) && world.front.calls().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_share_a_table_share_items() {
    let (front, table) = (Front::start().await, unique("shared"));
    let store = DynamoDbStore::with_credentials(settings(front.port, &table), anybody());
    let (left, right) = (view("p", "left", None, ["a"]), view("p", "right", None, ["b"]));
    let keys = [key("1")];
    block_in_place(|| {
        create_table(&table);
        put_item(&table, &entity_id(&keys[0]), "1970-01-01 00:00:05+00:00", &[("a", ONE)]);
    });
    let reads = [&left, &right].map(|view| ViewKeys { view, keys: &keys });
    let rows = store.read(&reads, patient()).await;
    assert_eq!(rows[0][0].as_ref().unwrap().as_ref().unwrap().cell(0), Cell::Value(ONE));
    assert_eq!(rows[1][0].as_ref().unwrap().as_ref().unwrap().cell(0), Cell::Absent);
    assert_eq!(front.calls()[0].keys().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_are_calls_side_by_side() {
    let mut world = DynamoDbWorld::new().await;
    let views = ["one", "two", "three"].map(ab);
    let keys: Vec<_> = (0..500_u16).map(|entity| key(entity.to_be_bytes())).collect();
    for view in &views {
        for entity in [0_u8, 99] {
            world.put(view, &keys[usize::from(entity) * 5], &[("a", &number(entity))], 1);
        }
    }
    // None is answered before all of them are there.
    world.front.behave(|_| Deed::Gather(15));
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    for rows in &rows {
        assert_eq!(tally(rows), (2, 498, BTreeMap::new()));
        let row = rows[495].as_ref().unwrap().as_ref().unwrap();
        assert_eq!(row.cell(0), Cell::Value(&number(99)));
    }
    let calls = world.front.calls();
    assert!(calls.iter().all(|call| call.keys().len() == 100), "{calls:?}");
    let asked: BTreeSet<_> = calls.iter().flat_map(|call| call.keys()).collect();
    assert_eq!((calls.len(), asked.len()), (15, 1500), "each key once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_are_bounded() {
    let mut world = DynamoDbWorld::with(|settings| {
        settings.max_calls = 2;
        settings.batch_size = 10;
    })
    .await;
    let (view, keys) = filled(&mut world, "view", 40);
    world.front.behave(|_| Deed::Stall);
    let rows = read(&world.store, &view, &keys, within(Duration::from_millis(500))).await;
    // Those that waited in vain for their turn do not hide that the others were not answered.
    let expected = BTreeMap::from([("timeout", 20), ("overloaded", 20)]);
    assert_eq!(tally(&rows), (0, 0, expected));
    assert_eq!(world.front.calls().len(), 2);
    world.front.behave(|_| Deed::Pass);
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert_eq!(tally(&rows), (40, 0, BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consistent_reads_are_asked_for() {
    for consistent in [false, true] {
        let world = DynamoDbWorld::with(|settings| settings.consistent_reads = consistent).await;
        read(&world.store, &ab("view"), &[key("1")], patient()).await;
        let items = &world.front.calls()[0].body["RequestItems"];
        let table = items.as_object().unwrap().values().next().unwrap();
        assert_eq!(table["ConsistentRead"], json!(consistent));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_full_is_followed_by_the_rest() {
    let mut world = DynamoDbWorld::new().await;
    let view = ab("view");
    let keys: Vec<_> = (0..60_u8).map(|entity| key([entity])).collect();
    for (entity, key) in keys.iter().enumerate() {
        // A `bytes_val` of 390 kB that begins with the entity.
        let mut value = vec![0x0a, 0xf0, 0xe6, 0x17];
        value.resize(value.len() + 390_000, entity as u8);
        world.put(&view, key, &[("a", &value)], 1);
    }
    let rows = read(&world.store, &view, &keys, patient()).await;
    for (entity, row) in rows.iter().enumerate() {
        let Cell::Value(value) = row.as_ref().unwrap().as_ref().unwrap().cell(0) else { panic!() };
        assert_eq!((value.len(), value[4]), (390_004, entity as u8));
    }
    assert!(world.front.calls().len() > 1, "the emulator ends answers at 16 MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_left_out_are_asked_for_again() {
    let mut world = DynamoDbWorld::new().await;
    let (view, mut keys) = filled(&mut world, "view", 150);
    keys.push(key("gone"));
    // Each call processes the keys of one first digit more.
    world.front.behave(|call| match call.number {
        0 | 1 => Deed::Leave(|_| true),
        2 | 3 => Deed::Leave(|id| id.as_bytes()[0] < b'8'),
        4 => Deed::Fail(400, "ProvisionedThroughputExceededException"),
        5 | 6 => Deed::Leave(|id| id.as_bytes()[0] < b'3'),
        _ => Deed::Pass,
    });
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert_eq!(tally(&rows), (150, 1, BTreeMap::new()));
    for (entity, row) in rows[..150].iter().enumerate() {
        let row = row.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(row.cell(0), Cell::Value(&number(entity as u8 & 0x7f)));
    }
    let calls = world.front.calls();
    assert!(calls.len() >= 6, "{}", calls.len());
    assert!(calls[7..].iter().all(|call| call.keys().len() < 60), "only what is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_left_out_for_good_are_no_absent_rows() {
    let mut world = DynamoDbWorld::new().await;
    let (view, keys) = filled(&mut world, "view", 100);
    let some = |id: &str| id.as_bytes()[0] < b'4';
    let left = keys.iter().filter(|key| some(&entity_id(key))).count();
    assert!(left > 5 && left < 95);
    world.front.behave(|_| Deed::Leave(|id| id.as_bytes()[0] < b'4'));
    let patience = Duration::from_millis(600);
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, within(patience)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Rows that came are served, and the breaker does not count the others.
    let expected = BTreeMap::from([("node_unavailable", left)]);
    assert_eq!(tally(&rows), (100 - left, 0, expected));

    world.front.behave(|_| Deed::Leave(|_| true));
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, within(patience)).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(rows.iter().all(is_throttled), "{rows:?}");
    let calls = world.front.calls().len();
    assert!((2..10).contains(&calls), "{calls} calls in {patience:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_throttles_all_is_an_outage_and_is_not_hammered() {
    let mut world = DynamoDbWorld::new().await;
    let (view, keys) = filled(&mut world, "view", 3);
    let codes =
        ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];
    for code in codes {
        world.front.behave(move |_| Deed::Fail(400, code));
        let started = Instant::now();
        let rows = read(&world.store, &view, &keys, within(Duration::from_millis(600))).await;
        assert!(rows.iter().all(is_throttled), "{code}: {rows:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let calls = world.front.calls().len();
        assert!((2..10).contains(&calls), "{calls}");
        let probe = world.store.probe().await;
        assert!(matches!(probe, Err(StoreError::Unavailable(_))), "{probe:?}");
        world.front.behave(|_| Deed::Leave(|_| true));
        let probe = world.store.probe().await;
        assert!(matches!(probe, Err(StoreError::Unavailable(_))), "{probe:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_sorted_by_who_can_mend_them() {
    let mut world = DynamoDbWorld::new().await;
    let (view, keys) = filled(&mut world, "view", 2);
    for (status, code, kind) in [
        (400, "AccessDeniedException", "refused"),
        (400, "UnrecognizedClientException", "refused"),
        (400, "ExpiredTokenException", "refused"),
        (400, "ValidationException", "refused"),
        (400, "SomethingNewException", "refused"),
        (500, "InternalServerError", "unavailable"),
        (503, "ServiceUnavailable", "unavailable"),
    ] {
        world.front.behave(move |_| Deed::Fail(status, code));
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert_eq!(tally(&rows).2, BTreeMap::from([(kind, 2)]), "{code}");
        let chain = rows[0].as_ref().unwrap_err().chain();
        assert!(chain.contains(code), "{chain}");
        assert_eq!(world.front.calls().len(), 1, "{code}: no call is repeated");
    }
    // An error of one call is none of the others.
    let (other, _) = filled(&mut world, "other", 2);
    let denied = world.table(&other);
    world.front.behave(move |call| match call.keys().iter().any(|(table, _)| *table == denied) {
        true => Deed::Fail(400, "AccessDeniedException"),
        false => Deed::Pass,
    });
    let reads = [&view, &other].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    assert_eq!(tally(&rows[0]), (2, 0, BTreeMap::new()));
    assert_eq!(tally(&rows[1]).2, BTreeMap::from([("refused", 2)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_fails_when_it_is_asked_again_fails_alone() {
    let mut world = DynamoDbWorld::new().await;
    let (good, keys) = filled(&mut world, "good", 40);
    let (bad, _) = filled(&mut world, "bad", 40);
    let denied = world.table(&bad);
    world.front.behave(move |call| match call.number {
        0 => Deed::Leave(|id| id.as_bytes()[0] < b'8'),
        _ if call.keys().iter().any(|(table, _)| *table == denied) => {
            Deed::Fail(400, "AccessDeniedException")
        }
        _ => Deed::Pass,
    });
    let left = keys.iter().filter(|key| entity_id(key).as_bytes()[0] < b'8').count();
    assert!(left > 0 && left < 40);
    let reads = [&good, &bad].map(|view| ViewKeys { view, keys: &keys });
    let rows = world.store.read(&reads, patient()).await;
    assert_eq!(tally(&rows[0]), (40, 0, BTreeMap::new()));
    // What came before is kept.
    assert_eq!(tally(&rows[1]), (40 - left, 0, BTreeMap::from([("refused", left)])));
    assert_eq!(world.front.calls().len(), 4, "both, both again, each for itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_do_not_fit_say_nothing_of_absences() {
    let world = DynamoDbWorld::new().await;
    let (view, keys) = (ab("view"), [key("1")]);
    let (table, other) = (world.table(&view), entity_id(&key("2")));
    let item = json!({
        "entity_id": { "S": other },
        "event_ts": { "S": "1970-01-01 00:00:05+00:00" },
        "values": { "M": {} },
    });
    let foreign_key = json!({ (&*table): { "Keys": [{ "entity_id": { "S": other } }] } });
    for answer in [
        json!({}),
        json!({ "Responses": { (&*table): [item] } }),
        json!({ "Responses": { (&*table): [{ "values": { "M": {} } }] } }),
        json!({ "Responses": { (&*table): [] }, "UnprocessedKeys": foreign_key }),
    ] {
        let text = answer.to_string();
        world.front.behave(move |_| Deed::Answer(answer.clone()));
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(matches!(rows[0], Err(StoreError::Corrupt(_))), "{text}: {rows:?}");
    }
    world.front.behave(move |_| Deed::Answer(json!({ "Responses": { (&*table): [] } })));
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(None)), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_stalls_takes_no_other_rows_along() {
    let mut world = DynamoDbWorld::with(|settings| settings.batch_size = 10).await;
    let (view, keys) = filled(&mut world, "view", 30);
    world.front.behave(|call| if call.number == 1 { Deed::Stall } else { Deed::Pass });
    let patience = Duration::from_secs(2);
    let started = Instant::now();
    let rows = read(&world.store, &view, &keys, within(patience)).await;
    assert!(started.elapsed() < patience, "rows are there before the caller gives up");
    assert_eq!(tally(&rows), (20, 0, BTreeMap::from([("node_unavailable", 10)])));

    world.front.behave(|_| Deed::Stall);
    let rows = read(&world.store, &view, &keys, within(Duration::from_millis(200))).await;
    assert_eq!(tally(&rows), (0, 0, BTreeMap::from([("timeout", 30)])));
    world.front.behave(|_| Deed::Cut);
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert_eq!(tally(&rows), (0, 0, BTreeMap::from([("unavailable", 30)])));
    world.front.behave(|_| Deed::Pass);
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert_eq!(tally(&rows), (30, 0, BTreeMap::new()));
}

/// The other side is gone without a word: what is connected never answers, what connects does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_stay_silent_are_given_up_together() {
    let mut world = DynamoDbWorld::with(|settings| settings.batch_size = 1).await;
    let (view, keys) = filled(&mut world, "view", 40);
    world.front.behave(|_| Deed::Gather(40));
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert_eq!(tally(&rows), (40, 0, BTreeMap::new()));
    assert!(world.front.connections() >= 40);
    world.front.lose_connections();
    world.front.behave(|_| Deed::Pass);
    let lost = AtomicUsize::new(0);
    until("a read succeeds", || async {
        let rows = read(&world.store, &view, &keys[..1], within(Duration::from_millis(200))).await;
        lost.fetch_add(rows[0].is_err().into(), Ordering::Relaxed);
        rows[0].is_ok()
    })
    .await;
    let lost = lost.into_inner();
    assert!((3..20).contains(&lost), "{lost} reads were lost, of 40 connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_need_not_be_allowed_to_list() {
    let mut world = DynamoDbWorld::new().await;
    // Of a table that is known, one key is read; before, any table is asked for.
    world.front.behave(|_| Deed::Fail(400, "AccessDeniedException"));
    assert!(world.store.probe().await.is_ok());
    assert_eq!(world.front.calls()[0].operation, "ListTables");
    world.front.behave(|_| Deed::Fail(500, "InternalServerError"));
    assert!(matches!(world.store.probe().await, Err(StoreError::Unavailable(_))));
    let (view, keys) = filled(&mut world, "view", 1);
    world.front.behave(|_| Deed::Pass);
    read(&world.store, &view, &keys, patient()).await;
    assert!(world.store.probe().await.is_ok());
    let calls = world.front.calls();
    assert_eq!(calls.last().unwrap().operation, "BatchGetItem");
    // A probe that finds nobody is over in time.
    world.front.behave(|_| Deed::Stall);
    let started = Instant::now();
    assert!(world.store.probe().await.is_err_and(|error| error.is_outage()));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    world.front.behave(|_| Deed::Pass);
    until_it_answers(&world.store).await;
}

/// Gives what a function makes of the number of the search.
struct Searches<F>(Arc<AtomicUsize>, F);

impl<F> std::fmt::Debug for Searches<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Searches")
    }
}

impl<F: Fn(usize) -> Option<Result<Credentials, CredentialsError>> + Send + Sync> ProvideCredentials
    for Searches<F>
{
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        match self.1(self.0.fetch_add(1, Ordering::SeqCst)) {
            Some(found) => future::ProvideCredentials::ready(found),
            None => future::ProvideCredentials::new(std::future::pending()),
        }
    }
}

/// A world whose store has credentials as `found` says, and how often it searched for them.
async fn searching<F>(found: F) -> (DynamoDbWorld, Arc<AtomicUsize>)
where
    F: Fn(usize) -> Option<Result<Credentials, CredentialsError>> + Send + Sync + 'static,
{
    let mut world = DynamoDbWorld::new().await;
    let searches = Arc::<AtomicUsize>::default();
    let provider = SharedCredentialsProvider::new(Searches(searches.clone(), found));
    let settings = settings(world.front.port, &format!("{}.{{table_name}}", world.prefix));
    world.store = DynamoDbStore::with_credentials(settings, provider);
    (world, searches)
}

fn lasting(time: Duration) -> Credentials {
    Credentials::new("larder", "secret", None, Some(SystemTime::now() + time), "test")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_reads_are_refused_and_say_what_to_do() {
    let (mut world, _) = searching(|search| {
        let found = search > 0;
        Some(if found { Ok(lasting(LONG)) } else { Err(CredentialsError::not_loaded("none")) })
    })
    .await;
    let (view, keys) = filled(&mut world, "view", 1);
    let rows = read(&world.store, &view, &keys, patient()).await;
    let Err(error @ StoreError::Refused(_)) = &rows[0] else { panic!("{rows:?}") };
    assert!(error.chain().contains("AWS_ACCESS_KEY_ID"), "{}", error.chain());
    assert!(world.front.calls().is_empty());
    until("they are found", || async {
        read(&world.store, &view, &keys, patient()).await[0].is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_do_not_come_hold_no_read_past_its_deadline() {
    let (world, _) = searching(|_| None).await;
    let started = Instant::now();
    let rows = read(&world.store, &ab("v"), &[key("1")], within(Duration::from_millis(150))).await;
    assert!(matches!(rows[0], Err(StoreError::Unavailable(_))), "{rows:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let started = Instant::now();
    assert!(world.store.probe().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_renewed_on_no_readers_time() {
    let (mut world, searches) =
        searching(|search| (search < 2).then(|| Ok(lasting(Duration::from_secs(3))))).await;
    let (view, keys) = filled(&mut world, "view", 1);
    // The third search hangs, and reads go on with what there is.
    until("they are searched for a third time", || async {
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
        searches.load(Ordering::SeqCst) == 3
    })
    .await;
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_refused_are_looked_up_again() {
    let (mut world, searches) = searching(|_| Some(Ok(lasting(LONG)))).await;
    let (view, keys) = filled(&mut world, "view", 1);
    world.front.behave(|_| Deed::Fail(400, "ExpiredTokenException"));
    for _ in 0..20 {
        let rows = read(&world.store, &view, &keys, patient()).await;
        assert!(matches!(rows[0], Err(StoreError::Refused(_))), "{rows:?}");
    }
    until("they are searched for", || async { searches.load(Ordering::SeqCst) == 2 }).await;
    assert!(searches.load(Ordering::SeqCst) <= 3, "not with every read");
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_bytes_and_strange_items_fail_their_rows_only() {
    let mut world = DynamoDbWorld::new().await;
    let (view, keys) = (ab("view"), ["1", "2", "3", "4", "5"].map(key));
    world.put(&view, &keys[0], &[("a", ONE)], 1);
    let table = world.table(&view);
    let item = |at: usize, more: serde_json::Value| {
        let mut item = json!({ "entity_id": { "S": entity_id(&keys[at]) } });
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        block_in_place(|| ask("PutItem", &json!({ "TableName": table, "Item": item })));
    };
    let noon = json!({ "S": "2024-07-01 12:00:00-04:00" });
    item(1, json!({ "event_ts": noon }));
    item(2, json!({ "event_ts": noon, "values": { "L": [] } }));
    item(3, json!({ "event_ts": { "S": "noon" }, "values": { "M": {} } }));
    item(4, json!({ "event_ts": noon, "values": { "M": { "a": { "NULL": true } } } }));
    let rows = read(&world.store, &view, &keys, patient()).await;
    assert!(matches!(rows[0], Ok(Some(_))), "{rows:?}");
    let row = rows[1].as_ref().unwrap().as_ref().unwrap();
    assert_eq!((row.cell(0), row.event_timestamp().seconds), (Cell::Absent, 1_719_849_600));
    assert!(rows[2..].iter().all(|row| matches!(row, Err(StoreError::Corrupt(_)))), "{rows:?}");
}

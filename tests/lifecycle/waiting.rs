//! `--on-bad-config wait`: what is wrong is told, and mended while larder runs.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    process::Command,
};

use larder::pb::serving::GetFeastServingInfoRequest;

use crate::{
    grpc::Client,
    world::{FEATURES, World, exchange, get, post, unix},
};

fn wait(command: &mut Command) {
    command.args(["--on-bad-config", "wait"]);
}

/// How often the log says so.
fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

const WAITING: &str = "waiting for a configuration that can be used";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_not_there_yet_is_waited_for_and_told_of() {
    let world = World::empty();
    let mut larder = world.serve(|command| {
        wait(command);
        command.env("LARDER_STARTUP__MAX_WAIT", "1h");
    });
    larder.until("it serves", || get(&world.socket(), "/health").is_some());

    let mut kept = UnixStream::connect(world.socket()).unwrap();
    let answer = exchange(&mut kept, &post(FEATURES, "")).unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("repo/feature_store.yaml: cannot be read"), "{}", answer.body);
    let mut client = Client::connect(&world.socket()).await;
    let call = client.begin("/feast.serving.ServingService/GetOnlineFeatures").await;
    // An empty message is a request for nothing, which is refused for want of a registry.
    let ended = call.finish(&GetFeastServingInfoRequest::default()).await;
    assert_eq!(ended.code, "14", "{ended:?}");
    assert!(ended.why.contains("feature_store.yaml"), "{ended:?}");
    assert_eq!(client.health("").await, 2);
    assert_eq!(client.health("larder.startup").await, 2);
    assert!(world.ready().is_err());
    let ready = world.ask_admin("/readyz").unwrap();
    assert!(ready.status == 503 && ready.body.contains("feature_store.yaml"), "{ready:?}");
    assert_eq!(world.ask_admin("/livez").unwrap().status, 200);
    let metrics = || world.ask_admin("/metrics").unwrap().body;
    assert!(metrics().contains("larder_config_errors 1\n"), "{}", metrics());

    // Something else is wrong, and more of it; then nothing is.
    world.mount("..1", |folder| {
        let yaml = "project: p\nonline_store: {type: redis, connection_string: 'h:1,\
                    password=hunter2', nonsense: 1}\n";
        fs::write(folder.join("feature_store.yaml"), yaml).unwrap();
    });
    larder.until("it tells of the change", || metrics().contains("larder_config_errors 2\n"));
    let answer = exchange(&mut kept, &post(FEATURES, "")).unwrap();
    assert!(answer.body.contains("registry: is missing"), "{}", answer.body);
    assert!(answer.body.contains("online_store.nonsense"), "{}", answer.body);
    assert!(!answer.body.contains("hunter2") && !larder.log().contains("hunter2"));
    world.mount("..2", |folder| world.add_quickstart(folder));

    larder.until("it is ready", || world.ready().is_ok());
    let answer = exchange(&mut kept, &post(FEATURES, "")).expect("the connection lives on");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(client.health("").await, 1);
    assert_eq!(world.ask_admin("/readyz").unwrap().status, 200);
    assert!(metrics().contains("larder_config_errors 0\n"), "{}", metrics());
    assert_eq!(count(&larder.log(), WAITING), 2, "{}", larder.log());
    assert_eq!(count(&larder.log(), "is in force"), 1);
    assert_eq!(count(&larder.log(), "serving gRPC and HTTP"), 1);
    larder.signal("-TERM");
    assert_eq!(larder.ends(), Some(0));
}

#[test]
fn waiting_has_its_time_too() {
    let world = World::empty();
    let mut larder = world.serve(|command| {
        wait(command);
        command.env("LARDER_STARTUP__MAX_WAIT", "1ms");
    });
    larder.until("it counts as started", || world.ready().is_ok());
    assert_eq!(world.ask_admin("/readyz").unwrap().status, 503);
}

#[test]
fn a_mended_configuration_may_listen_elsewhere() {
    let world = World::quickstart();
    let other = world.path("other.sock");
    let larder_yaml = world.repo().join("larder.yaml");
    fs::write(&larder_yaml, format!("listen: {}\ncache: nonsense\n", unix(&world.socket())))
        .unwrap();
    let mut command = world.command("serve");
    command.arg("-c").arg(world.repo()).env("LARDER_ON_BAD_CONFIG", "wait");
    command.arg("--admin").arg(unix(&world.admin()));
    let mut larder = world.spawn(command);
    larder.until("it waits", || world.ask().is_some_and(|answer| answer.status == 503));

    let text = format!("listen: {}\nunix_socket_mode: '0600'\n", unix(&other));
    fs::write(world.path("new"), text).unwrap();
    fs::rename(world.path("new"), larder_yaml).unwrap();
    larder.until("it is at the other address", || {
        get(&other, "/health").is_some_and(|answer| answer.status == 200)
    });
    assert!(!world.socket().exists());
    larder.until("the admin's socket, too, has the new permissions", || {
        let metadata = fs::metadata(world.admin());
        metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == 0o600)
    });
    assert_eq!(world.ask_admin("/readyz").unwrap().status, 200);
}

#[test]
fn an_address_that_is_in_use_is_tried_again_while_the_others_are_served() {
    let world = World::quickstart();
    let taken = world.path("taken.sock");
    let other = UnixListener::bind(&taken).unwrap();
    let serve = |change: fn(&mut Command)| {
        world.serve(|command| {
            command.arg("--listen").arg(unix(&taken)).env("LARDER_STARTUP__MAX_WAIT", "1h");
            change(command);
        })
    };
    let mut stops = serve(|_| {});
    assert_eq!(stops.ends(), Some(1));
    assert!(stops.log().contains("taken.sock"), "{}", stops.log());

    let mut larder = serve(wait);
    larder.until("it serves", || world.ask().is_some_and(|answer| answer.status == 200));
    assert!(world.ready().unwrap_err().contains("is starting"));
    assert!(world.ask_admin("/readyz").unwrap().body.contains("listeners are not open"));
    drop(other);
    larder.until("all are open", || world.ready().is_ok());
    assert_eq!(get(&taken, "/health").unwrap().status, 200);
    assert_eq!(count(&larder.log(), "trying again"), 1, "{}", larder.log());
}

#[test]
fn without_being_told_to_wait_a_wrong_configuration_opens_nothing() {
    let world = World::empty();
    let mut larder = world.serve(|_| {});
    assert_eq!(larder.ends(), Some(64));
    assert!(!world.socket().exists() && !world.admin().exists());
    assert!(larder.log().contains("repo/feature_store.yaml: cannot be read"), "{}", larder.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_are_told_no_more_than_they_can_take() {
    let world = World::quickstart();
    let keys: String = (0..500).map(|number| format!("nonsense_{number}: 1\n")).collect();
    fs::write(world.repo().join("larder.yaml"), keys).unwrap();
    let mut larder = world.serve(wait);
    larder.until("it serves", || get(&world.socket(), "/health").is_some());
    let mut client = Client::connect(&world.socket()).await;
    let call = client.begin("/feast.serving.ServingService/GetOnlineFeatures").await;
    let ended = call.finish(&GetFeastServingInfoRequest::default()).await;
    assert_eq!(ended.code, "14");
    let why = ended.why.replace("%20", " ");
    assert!(why.starts_with("larder has no configuration that can be used: "), "{why}");
    assert!(why.ends_with(" more; the log has all") && ended.why.len() < 4000, "{why}");
    let answer = world.ask().unwrap();
    assert!(answer.status == 503 && answer.body.contains("the log has all"), "{answer:?}");
    for all in [larder.log(), world.ask_admin("/readyz").unwrap().body] {
        assert!(all.contains("nonsense_499"), "{all}");
    }
}

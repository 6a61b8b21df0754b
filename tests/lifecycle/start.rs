//! What `larder ready` says, and when.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    thread,
    time::Instant,
};

use crate::{
    grpc::Client,
    world::{LONG, World, told, unix},
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// A repository whose registry is not there yet.
fn without_registry() -> World {
    let world = World::quickstart();
    fs::rename(world.repo().join("registry.db"), world.path("registry.db")).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_is_done_once_the_registry_is_loaded() {
    let world = without_registry();
    let why = world.ready().unwrap_err();
    assert!(why.contains("larder.sock") && why.contains("cannot connect"), "{why}");

    let mut larder = world.serve(|command| {
        command.env("LARDER_STARTUP__MAX_WAIT", "1h");
    });
    larder.until("it tells what it misses", || {
        let answer = world.ask_admin("/readyz");
        answer.is_some_and(|answer| answer.status == 503 && answer.body.contains("registry.db"))
    });
    let why = world.ready().unwrap_err();
    assert!(why.contains("is starting"), "{why}");
    let mut client = Client::connect(&world.socket()).await;
    for service in ["", "larder.startup", "feast.serving.ServingService"] {
        assert_eq!(client.health(service).await, NOT_SERVING, "{service}");
    }

    fs::rename(world.path("registry.db"), world.repo().join("registry.db")).unwrap();
    larder.until("it is ready", || world.ready().is_ok());
    for service in ["", "larder.startup", "feast.serving.ServingService"] {
        assert_eq!(client.health(service).await, SERVING, "{service}");
    }
    assert_eq!(world.ask_admin("/readyz").unwrap().status, 200);
    let metrics = world.ask_admin("/metrics").unwrap().body;
    assert!(metrics.contains("larder_config_errors 0\n"), "{metrics}");
    assert_eq!(world.ask().unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_waits_for_a_registry_no_longer_than_it_may_and_health_stays_honest() {
    let world = without_registry();
    let mut larder = world.serve(|command| {
        command.env("LARDER_STARTUP__MAX_WAIT", "1ms");
    });
    larder.until("it counts as started", || world.ready().is_ok());
    let mut client = Client::connect(&world.socket()).await;
    assert_eq!(client.health("").await, NOT_SERVING);
    assert_eq!(world.ask_admin("/readyz").unwrap().status, 503);
    assert_eq!(world.ask().unwrap().status, 503);
}

#[test]
fn a_store_that_is_gone_holds_up_no_start() {
    let world = World::quickstart();
    fs::remove_file(world.repo().join("online.db")).unwrap();
    let mut larder = world.serve(|command| {
        command.env("LARDER_STARTUP__MAX_WAIT", "1h");
    });
    larder.until("it is ready", || world.ready().is_ok());
}

#[test]
fn whoever_does_not_answer_is_not_ready_and_not_waited_for() {
    let world = World::empty();
    let _silent = UnixListener::bind(world.socket()).unwrap();
    let began = Instant::now();
    let why = world.ready().unwrap_err();
    assert!(why.contains("does not answer"), "{why}");
    assert!(began.elapsed() < LONG / 2);

    let world = World::empty();
    let listener = UnixListener::bind(world.socket()).unwrap();
    let hangs_up = thread::spawn(move || drop(listener.accept().unwrap()));
    world.ready().unwrap_err();
    hangs_up.join().unwrap();
}

#[test]
fn ready_asks_at_whatever_address() {
    let world = World::quickstart();
    // A name in the network's namespace: two runs of this test must not meet.
    let name = format!("unix-abstract:larder-test-{}", std::process::id());
    let mut larder = world.serve(|command| {
        command.args(["--listen", &name]);
    });
    let ready = || world.command("ready").args(["--address", &name]).output().unwrap();
    larder.until("it is ready", || ready().status.success());
    let wrong = world.command("ready").args(["--address", "nowhere"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64), "{}", told(&wrong));
}

#[test]
fn the_socket_of_a_process_that_was_killed_is_replaced() {
    let world = World::quickstart();
    let serve = || {
        world.serve(|command| {
            command.env("LARDER_UNIX_SOCKET_MODE", "0666");
        })
    };
    let mut first = serve();
    first.until("the first is ready", || world.ready().is_ok());

    // While it lives, its socket is its own.
    assert_eq!(serve().ends(), Some(1));
    world.ready().unwrap();

    first.signal("-KILL");
    first.ends();
    assert!(world.socket().exists() && UnixStream::connect(world.socket()).is_err());
    let mut second = serve();
    second.until("the second is ready", || world.ready().is_ok());
    let mode = fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn a_larder_yaml_in_the_repository_is_read_unless_another_is_named() {
    let world = World::quickstart();
    let elsewhere = unix(&world.path("elsewhere.sock"));
    fs::write(world.repo().join("larder.yaml"), "requests: {max_rows: nonsense}\n").unwrap();
    let check = world.command("check").arg("-c").arg(world.repo()).output().unwrap();
    assert_eq!(check.status.code(), Some(64));
    assert!(told(&check).contains("repo/larder.yaml:1:22: requests.max_rows"), "{}", told(&check));

    fs::write(world.path("named.yaml"), format!("listen: {elsewhere}\n")).unwrap();
    let mut named = world.command("check");
    named.arg("-c").arg(world.repo()).args(["--config", "named.yaml"]);
    assert_eq!(named.output().unwrap().status.code(), Some(0));
}

#[test]
fn flags_win_over_variables_wherever_they_stand() {
    let world = World::quickstart();
    for name in ["flag", "env"] {
        fs::write(world.path(name), format!("requests: {{max_rows: {name}}}\n")).unwrap();
    }
    let check = |before: &[&str], after: &[&str]| {
        let mut command = world.command(before.first().unwrap_or(&"check"));
        command.args(before.get(1..).unwrap_or_default());
        command.args(before.first().map(|_| "check")).arg("-c").arg(world.repo()).args(after);
        let output = command.env("LARDER_CONFIG", "env").output().unwrap();
        told(&output).split(':').next().unwrap().to_owned()
    };
    assert_eq!(check(&[], &[]), "env");
    assert_eq!(check(&["--config", "flag"], &[]), "flag");
    assert_eq!(check(&[], &["--config", "flag"]), "flag");
    assert_eq!(check(&["--config", "env"], &["--config", "flag"]), "flag");
}

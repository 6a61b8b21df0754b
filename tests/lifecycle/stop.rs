//! SIGTERM, whenever it comes.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use larder::pb::serving::GetFeastServingInfoRequest;

use crate::{
    grpc::Client,
    world::{FEATURES, LONG, Larder, World, exchange, get, post, read_answer, read_head},
};

fn ready(world: &World, change: impl FnOnce(&mut Command)) -> Larder {
    let mut larder = world.serve(change);
    larder.until("it is ready", || world.ready().is_ok());
    larder
}

#[test]
fn it_is_heard_before_anything_is_read() {
    let world = World::empty();
    // Whoever reads it waits for a writer.
    let pipe = world.repo().join("feature_store.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut larder = world.serve(|_| {});
    // The pipe can be opened for writing only once larder reads it.
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::OpenOptions::new().write(true).open(pipe).unwrap())
    };
    larder.until("it reads the configuration", || writer.is_finished());
    let writer = writer.join().unwrap();
    larder.signal("-TERM");
    assert_eq!(larder.ends(), Some(0));
    drop(writer);
}

#[test]
fn it_is_heard_while_a_configuration_is_waited_for() {
    let world = World::empty();
    let mut larder = world.serve(|command| {
        command.args(["--on-bad-config", "wait"]);
    });
    larder.until("it serves", || get(&world.socket(), "/health").is_some());
    larder.signal("-TERM");
    assert_eq!(larder.ends(), Some(0));
    assert!(!world.socket().exists() && !world.admin().exists());
}

#[test]
fn what_is_under_way_is_finished_and_what_idles_is_closed() {
    let world = World::quickstart();
    let mut larder = ready(&world, |_| {});
    let mut idle = UnixStream::connect(world.socket()).unwrap();
    assert_eq!(exchange(&mut idle, &post(FEATURES, "")).unwrap().status, 200);
    let mut silent = UnixStream::connect(world.socket()).unwrap();
    let mut busy = UnixStream::connect(world.socket()).unwrap();
    let request = post(FEATURES, "expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - FEATURES.len());
    busy.write_all(head.as_bytes()).unwrap();
    assert!(read_head(&mut busy).unwrap().contains("100 Continue"));

    larder.signal("-TERM");
    for stream in [&mut idle, &mut silent] {
        stream.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is closed");
    }
    larder.until("it accepts no more", || UnixStream::connect(world.socket()).is_err());
    let health = world.ask_admin("/readyz").expect("health is there to the end");
    assert_eq!(health.status, 503);
    assert_eq!(larder.has_ended(), None);

    busy.write_all(body.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut busy).unwrap().status, 200);
    assert_eq!(larder.ends(), Some(0));
    assert!(!world.socket().exists() && !world.admin().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_is_finished_and_its_connection_told_to_go() {
    let world = World::quickstart();
    let mut larder = ready(&world, |_| {});
    let mut client = Client::connect(&world.socket()).await;
    let mut idle = Client::connect(&world.socket()).await;
    assert_eq!(idle.health("").await, 1);
    let call = client.begin("/feast.serving.ServingService/GetFeastServingInfo").await;
    // What is answered behind it shows that it arrived.
    assert_eq!(client.health("").await, 1);

    larder.signal("-TERM");
    idle.goes().await;
    assert_eq!(larder.has_ended(), None);
    assert_eq!(call.finish(&GetFeastServingInfoRequest::default()).await.code, "0");
    client.goes().await;
    assert_eq!(larder.ends(), Some(0));
}

#[test]
fn what_takes_longer_than_the_grace_is_cut_off() {
    let world = World::quickstart();
    let mut larder = ready(&world, |command| {
        command.env("LARDER_SHUTDOWN__GRACE", "100ms");
    });
    let mut busy = UnixStream::connect(world.socket()).unwrap();
    busy.write_all(
        post(FEATURES, "expect: 100-continue\r\n").split(FEATURES).next().unwrap().as_bytes(),
    )
    .unwrap();
    assert!(read_head(&mut busy).unwrap().contains("100 Continue"));
    larder.signal("-TERM");
    assert_eq!(larder.ends(), Some(0));
    assert!(larder.log().contains("cut off"), "{}", larder.log());
    busy.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(busy.read(&mut [0]), Ok(0) | Err(_)));
}

//! `larder drain`.

use std::{
    os::unix::net::UnixListener,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::world::{World, pause, told, unix};

fn drain(world: &World, flags: &[&str]) -> Command {
    let mut command = world.command("drain");
    command.arg("--admin").arg(unix(&world.admin())).args(flags);
    command
}

#[test]
fn it_waits_until_nobody_asks_any_more() {
    let world = World::quickstart();
    let mut larder = world.serve(|_| {});
    larder.until("it is ready", || world.ready().is_ok());
    let asking = AtomicBool::new(true);
    // As long as somebody asks, only the longest wait ends it.
    let began = Instant::now();
    let busy = thread::scope(|scope| {
        let asks = scope.spawn(|| {
            while asking.load(Ordering::Relaxed) {
                assert_eq!(world.ask().unwrap().status, 200);
                pause();
            }
        });
        let busy = drain(&world, &["--quiet", "1s", "--max-wait", "2s"]).output();
        asking.store(false, Ordering::Relaxed);
        asks.join().unwrap();
        busy.unwrap()
    });
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert_eq!(busy.status.code(), Some(0));
    assert!(told(&busy).contains("no pause of 1s"), "{}", told(&busy));
    let quiet = drain(&world, &["--quiet", "300ms", "--max-wait", "1h"]).output().unwrap();
    assert_eq!((quiet.status.code(), told(&quiet).as_str()), (Some(0), ""));
}

#[test]
fn who_does_not_answer_may_have_requests() {
    let world = World::empty();
    let _silent = UnixListener::bind(world.admin()).unwrap();
    let began = Instant::now();
    let waits = ["--quiet", "100ms", "--max-wait", "2500ms"];
    let silent = drain(&world, &waits).output().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!(silent.status.code(), Some(0));
    assert!(told(&silent).contains("nobody answers at unix:"), "{}", told(&silent));
}

#[test]
fn a_hook_never_fails_but_for_a_wrong_command_line() {
    let world = World::empty();
    let nobody = drain(&world, &["--quiet", "10ms"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(0));
    assert!(told(&nobody).contains("nobody answers at unix:"), "{}", told(&nobody));
    let waits = ["--quiet", "1h", "--max-wait", "10ms"];
    let nobody = drain(&world, &waits).output().unwrap();
    assert!(told(&nobody).contains("nobody answers at unix:"), "{}", told(&nobody));
    let off = world.command("drain").args(["--admin", "off"]).output().unwrap();
    assert_eq!(off.status.code(), Some(0));
    assert_eq!(drain(&world, &["--quiet", "soon"]).output().unwrap().status.code(), Some(64));
}

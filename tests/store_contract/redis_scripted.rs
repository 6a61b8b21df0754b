//! Servers that answer as a test tells them: what no real one can be made to do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Condvar, PoisonError},
    time::Duration,
};

use larder::store::{
    OnlineStore, RedisReadFrom, RedisTopology, StoreError, ViewKeys, redis::RedisStore,
};

use crate::{
    redis_server::{at, settings},
    world::{ab, key, patient, read, until},
};

type Command = Vec<Vec<u8>>;

/// Listens, and answers each command with what `answer` says, in the order of the commands.
fn serve(listener: TcpListener, answer: impl Fn(&Command) -> String + Send + Sync + 'static) {
    serve_reading(listener, |_| {}, answer);
}

/// As `serve`; `seen` is told of each command once it is read, which is before earlier ones are
/// answered.
fn serve_reading(
    listener: TcpListener,
    seen: impl Fn(&Command) + Send + Sync + 'static,
    answer: impl Fn(&Command) -> String + Send + Sync + 'static,
) {
    let script = Arc::new((seen, answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), script) = (stream, script.clone()) else { return };
            let mut commands = BufReader::new(stream.try_clone().unwrap());
            let (send, receive) = std::sync::mpsc::sync_channel(10_000);
            let reader = script.clone();
            std::thread::spawn(move || {
                while let Some(command) = command(&mut commands) {
                    (reader.0)(&command);
                    if send.send(command).is_err() {
                        return;
                    }
                }
            });
            std::thread::spawn(move || {
                for command in receive {
                    if stream.write_all((script.1)(&command).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn command(stream: &mut BufReader<TcpStream>) -> Option<Command> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let count: usize = line.strip_prefix('*')?.trim_end().parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let length: usize = line.strip_prefix('$')?.trim_end().parse().ok()?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).ok()?;
        word.truncate(length);
        words.push(word);
    }
    Some(words)
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn is(command: &Command, words: &str) -> bool {
    let mut found = command.iter().map(|word| String::from_utf8_lossy(word).to_uppercase());
    words.split(' ').all(|word| found.next().as_deref() == Some(word))
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Nothing of any field that an HMGET asks for.
fn nils(hmget: &Command) -> String {
    format!("*{}\r\n{}", hmget.len() - 2, "$-1\r\n".repeat(hmget.len() - 2))
}

/// A map of slots in which each server has an equal part.
fn slots(ports: &[u16]) -> String {
    let share = 16384 / ports.len();
    let range = |(place, port): (usize, &u16)| {
        let (first, last) = (place * share, (place + 1) * share - 1);
        format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n{}:{port}\r\n", bulk("127.0.0.1"))
    };
    let ranges: String = ports.iter().enumerate().map(range).collect();
    format!("*{}\r\n{ranges}", ports.len())
}

/// Counts HMGETs, whoever is sent them, and lets nobody answer before all have been read.
struct Gate {
    read: std::sync::atomic::AtomicUsize,
    wanted: usize,
    open: (GateMutex, Condvar),
}

#[allow(clippy::disallowed_types, reason = "a Condvar of the standard library wants its mutex")]
type GateMutex = std::sync::Mutex<usize>;

impl Gate {
    fn new(wanted: usize) -> Arc<Self> {
        Arc::new(Self { read: 0.into(), wanted, open: (GateMutex::new(0), Condvar::new()) })
    }

    fn arrived(&self) {
        let mut count = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        self.read.store(*count, std::sync::atomic::Ordering::Relaxed);
        self.open.1.notify_all();
    }

    fn wait(&self) {
        let mut count = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *count < self.wanted {
            count = self.open.1.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// As `serve`, for servers that read all HMGETs before they answer any.
fn serve_behind(
    gate: &Arc<Gate>,
    listener: TcpListener,
    more: impl Fn(&Command) -> String + Send + Sync + 'static,
) {
    let (reader, gate) = (gate.clone(), gate.clone());
    let seen = move |command: &Command| {
        if is(command, "HMGET") {
            reader.arrived();
        }
    };
    serve_reading(listener, seen, move |command| {
        if is(command, "HMGET") {
            gate.wait();
            nils(command)
        } else {
            more(command)
        }
    });
}

fn plain(command: &Command) -> String {
    if is(command, "PING") { "+PONG\r\n".into() } else { "-ERR not scripted\r\n".into() }
}

const ENTITIES: u16 = 500;

async fn reads_all_at_once(store: &RedisStore, gate: &Gate) {
    let views = ["one", "two", "three"].map(ab);
    let keys: Vec<_> = (0..ENTITIES).map(|entity| key(entity.to_le_bytes())).collect();
    let reads = views.each_ref().map(|view| ViewKeys { view, keys: &keys });
    let rows = store.read(&reads, patient()).await;
    assert!(rows.iter().flatten().all(|row| matches!(row, Ok(None))));
    assert_eq!(rows.iter().flatten().count(), 3 * usize::from(ENTITIES));
    let read = gate.read.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(read, usize::from(ENTITIES), "one command for each entity");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_waits_for_the_answer_to_another() {
    let gate = Gate::new(ENTITIES.into());
    let (listener, port) = listener();
    serve_behind(&gate, listener, plain);
    let store = RedisStore::new(settings(RedisTopology::Single(at(port))));
    reads_all_at_once(&store, &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_to_a_cluster_waits_for_the_answer_to_another_of_any_node() {
    let gate = Gate::new(ENTITIES.into());
    let (one, two) = (listener(), listener());
    let ports = [one.1, two.1];
    for (listener, _) in [one, two] {
        serve_behind(&gate, listener, move |command| {
            if is(command, "CLUSTER SLOTS") { slots(&ports) } else { plain(command) }
        });
    }
    let store = RedisStore::new(settings(RedisTopology::Cluster(vec![at(ports[0])])));
    reads_all_at_once(&store, &gate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_too_old_is_refused_by_its_version() {
    let (listener, port) = listener();
    serve(listener, |command| {
        if is(command, "INFO SERVER") {
            bulk("# Server\r\nredis_version:5.0.14\r\n")
        } else if is(command, "HMGET") {
            nils(command)
        } else {
            plain(command)
        }
    });
    let store = RedisStore::new(settings(RedisTopology::Single(at(port))));
    match read(&store, &ab("view"), &[key("1")], patient()).await.remove(0) {
        Err(error @ StoreError::Refused(_)) => {
            let expected = format!("redis at `127.0.0.1:{port}` is of version 5.0.14");
            assert!(error.chain().contains(&expected), "{}", error.chain());
        }
        other => panic!("{other:?}"),
    }
}

/// What a replica that is not in step does not have may well exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_out_of_step_is_not_believed() {
    for (state, is_read) in [("connected", true), ("sync", false), ("connect", false)] {
        let (master, replica) = (listener(), listener());
        let ports = [master.1, replica.1];
        let map = format!(
            "*1\r\n*4\r\n:0\r\n:16383\r\n*2\r\n{host}:{}\r\n*2\r\n{host}:{}\r\n",
            ports[0],
            ports[1],
            host = bulk("127.0.0.1"),
        );
        serve(master.0, move |command| {
            if is(command, "CLUSTER SLOTS") {
                map.clone()
            } else if is(command, "HMGET") {
                // Feature `a` is null, `b` absent, the time the epoch.
                format!("*3\r\n{}$-1\r\n$-1\r\n", bulk(""))
            } else {
                plain(command)
            }
        });
        serve(replica.0, move |command| match command {
            _ if is(command, "READONLY") => "+OK\r\n".into(),
            _ if is(command, "HMGET") => nils(command),
            _ if is(command, "ROLE") => {
                let (slave, host, state) = (bulk("slave"), bulk("127.0.0.1"), bulk(state));
                format!("*5\r\n{slave}{host}:{}\r\n{state}:0\r\n", ports[0])
            }
            _ => plain(command),
        });
        let mut settings = settings(RedisTopology::Cluster(vec![at(ports[0])]));
        settings.read_from = RedisReadFrom::PreferReplica;
        let store = RedisStore::new(settings);
        let (view, keys) = (ab("view"), [key("1")]);
        let reads_replica = async || {
            let rows = read(&store, &view, &keys, patient()).await;
            rows[0].as_ref().unwrap().is_none()
        };
        if is_read {
            until("the replica is read", reads_replica).await;
        } else {
            for _ in 0..100 {
                assert!(!reads_replica().await, "a replica in state {state} was believed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

//! Servers that answer as a test tells them: what no real one can be made to do.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use larder::store::{
    OnlineStore, RedisReadFrom, RedisTopology, Secret, StoreError, ViewKeys, redis::RedisStore,
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
    read: AtomicUsize,
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
        self.read.store(*count, Ordering::Relaxed);
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
    let read = gate.read.load(Ordering::Relaxed);
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
                row()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_is_an_outage_also_to_a_login() {
    let (listener, port) = listener();
    serve(listener, |_| "-ERR max number of clients reached\r\n".into());
    let mut settings = settings(RedisTopology::Single(at(port)));
    settings.access.password = Some(Secret("secret".into()));
    let rows = read(&RedisStore::new(settings), &ab("view"), &[key("1")], patient()).await;
    match &rows[0] {
        Err(error @ StoreError::Unavailable(_)) => {
            assert!(error.chain().contains("max number of clients"), "{}", error.chain());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_ask_each_connection_in_turn() {
    let pings = Arc::new(parking_lot::Mutex::new(HashMap::new()));
    let (listener, port) = listener();
    let seen = pings.clone();
    serve(listener, move |command| {
        if is(command, "PING") {
            // Each connection has a thread of its own.
            *seen.lock().entry(std::thread::current().id()).or_insert(0) += 1;
        }
        plain(command)
    });
    let store = RedisStore::new(settings(RedisTopology::Single(at(port))));
    until("both connections are there", || async {
        let _ = read(&store, &ab("view"), &[key("1")], patient()).await;
        pings.lock().len() == 2
    })
    .await;
    for _ in 0..10 {
        store.probe().await.unwrap();
    }
    // The first is of the greeting.
    assert!(pings.lock().values().all(|pings| *pings > 2), "{:?}", pings.lock());
}

/// Longer and longer pauses, as after attempts that fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_greets_and_closes_is_not_stormed() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let (listener, port) = listener();
    let count = accepted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut commands = BufReader::new(stream.try_clone().unwrap());
            while let Some(command) = command(&mut commands) {
                stream.write_all(plain(&command).as_bytes()).unwrap();
                if is(&command, "PING") {
                    // Time to be taken for a connection.
                    std::thread::sleep(Duration::from_millis(5));
                    break;
                }
            }
        }
    });
    let mut settings = settings(RedisTopology::Single(at(port)));
    settings.connections = 1;
    settings.max_backoff = Duration::from_secs(10);
    let store = RedisStore::new(settings);
    let began = Instant::now();
    let _ = read(&store, &ab("view"), &[key("1")], patient()).await;
    until("it was connected to often", || async { accepted.load(Ordering::Relaxed) >= 8 }).await;
    // Of pauses that begin with 10 ms, the seventh is 640 ms.
    assert!(began.elapsed() > Duration::from_millis(1200), "{:?}", began.elapsed());
}

/// What a node of a cluster says of itself.
fn cluster_info(state: &str, epoch: u64) -> String {
    bulk(&format!("cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n"))
}

/// A row of view `ab`: feature `a` is null, `b` absent, the time the epoch.
fn row() -> String {
    format!("*3\r\n{}$-1\r\n$-1\r\n", bulk(""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_not_all_that_is_asked() {
    let phase = Arc::new(AtomicUsize::new(0));
    let [seed, old, new, last] = [listener(), listener(), listener(), listener()];
    let ports = [old.1, new.1, last.1];
    // The master and what is said of the cluster, by whom in which phase.
    let node = |listener, says: [(usize, &'static str, u64); 3], rows: [bool; 3]| {
        let phase = phase.clone();
        serve(listener, move |command| {
            let phase = phase.load(Ordering::Relaxed);
            let (master, state, epoch) = says[phase];
            match command {
                _ if is(command, "CLUSTER SLOTS") => slots(&[ports[master]]),
                _ if is(command, "CLUSTER INFO") => cluster_info(state, epoch),
                _ if is(command, "HMGET") && rows[phase] => row(),
                _ if is(command, "HMGET") => "-CLUSTERDOWN The cluster is down\r\n".into(),
                _ => plain(command),
            }
        });
    };
    // First the old master goes, which a seed knows of; then nobody is well, and one knows more.
    let no = (0, "fail", 1);
    node(seed.0, [(0, "ok", 1), (1, "ok", 2), no], [false; 3]);
    node(old.0, [(0, "ok", 1), no, no], [true, false, false]);
    node(new.0, [(1, "ok", 2), (1, "ok", 2), (2, "fail", 3)], [false, true, false]);
    node(last.0, [(2, "fail", 3); 3], [false, false, true]);
    let store = RedisStore::new(settings(RedisTopology::Cluster(vec![at(seed.1)])));
    for step in 0..3 {
        phase.store(step, Ordering::Relaxed);
        until("the node that has the row is read", || async {
            let rows = read(&store, &ab("view"), &[key("1")], patient()).await;
            matches!(rows[0], Ok(Some(_)))
        })
        .await;
    }
}

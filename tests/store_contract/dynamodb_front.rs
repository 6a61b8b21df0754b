//! What stands before DynamoDB Local, and does what that never does: throttles, leaves keys out,
//! stays silent, breaks off, is gone.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::dynamodb_server::{port, post};

/// What becomes of a call.
#[derive(Clone)]
pub(crate) enum Deed {
    Pass,
    /// As many calls are waited for before any is answered.
    Gather(usize),
    /// Keys of these ids are not processed.
    Leave(fn(&str) -> bool),
    /// An error of this code.
    Fail(u16, &'static str),
    /// The answer is this.
    Answer(Value),
    /// There is no answer.
    Stall,
    /// The connection ends.
    Cut,
}

type Behaviour = dyn Fn(&Call) -> Deed + Send + Sync;

/// A call of `BatchGetItem`, or of something else, which has no keys.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// From 0, since the last change of behaviour.
    pub(crate) number: usize,
    pub(crate) operation: String,
    pub(crate) body: Value,
}

pub(crate) struct Front {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    calls: Mutex<Vec<Call>>,
    arrived: watch::Sender<usize>,
    connections: AtomicUsize,
    /// Connections up to this one do not answer any more.
    dead: AtomicUsize,
}

impl Front {
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(|_| Deed::Pass)),
            calls: Mutex::default(),
            arrived: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            dead: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut front = Self { port, shared, tasks: JoinSet::new() };
        front.serve(listener);
        front
    }

    /// Changes what becomes of calls, and forgets those that were.
    pub(crate) fn behave(&self, behaviour: impl Fn(&Call) -> Deed + Send + Sync + 'static) {
        let mut current = self.shared.behaviour.lock();
        self.shared.calls.lock().clear();
        self.shared.arrived.send_replace(0);
        *current = Arc::new(behaviour);
    }

    /// The calls since the last change of behaviour.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().clone()
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What was connected so far is never answered again, and not closed either.
    pub(crate) fn lose_connections(&self) {
        self.shared.dead.store(self.connections(), Ordering::SeqCst);
    }

    /// Closes the port and all connections.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Opens the same port.
    pub(crate) fn restart(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, self.port).into()).unwrap();
        self.serve(socket.listen(128).unwrap());
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(shared.clone().answer(stream));
            }
        });
    }
}

impl Call {
    /// The keys, as (table, id).
    pub(crate) fn keys(&self) -> Vec<(String, String)> {
        let tables = self.body["RequestItems"].as_object().into_iter().flatten();
        let keys = tables.flat_map(|(table, asked)| {
            let keys = asked["Keys"].as_array().unwrap().iter();
            keys.map(|key| (table.clone(), key["entity_id"]["S"].as_str().unwrap().to_owned()))
        });
        keys.collect()
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, stream: TcpStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let mut stream = BufStream::new(stream);
        while let Some((operation, body)) = request(&mut stream).await {
            let (call, deed) = {
                let behaviour = self.behaviour.lock();
                let mut calls = self.calls.lock();
                let call = Call { number: calls.len(), operation, body };
                calls.push(call.clone());
                self.arrived.send_replace(calls.len());
                let deed = behaviour(&call);
                (call, deed)
            };
            if number <= self.dead.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let (status, answer) = match deed {
                Deed::Pass => pass(call).await,
                Deed::Gather(count) => {
                    let mut arrived = self.arrived.subscribe();
                    arrived.wait_for(|arrived| *arrived >= count).await.unwrap();
                    pass(call).await
                }
                Deed::Leave(left) => leave(call, left).await,
                Deed::Fail(status, code) => {
                    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
                    (status, json!({ "__type": kind, "message": "by the test" }))
                }
                Deed::Answer(answer) => (200, answer),
                Deed::Stall => std::future::pending().await,
                Deed::Cut => return,
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\n\
                 Content-Length: {}\r\n\r\n",
                answer.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// The next request of a connection: operation and body.
async fn request(stream: &mut BufStream<TcpStream>) -> Option<(String, Value)> {
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            None if line.trim_end().is_empty() => break,
            Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => {
                operation = value.split_once('.')?.1.to_owned();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().ok()?;
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((operation, serde_json::from_slice(&body).ok()?))
}

async fn pass(call: Call) -> (u16, Value) {
    let port = port();
    let asked = move || post(port, &call.operation, &call.body).unwrap();
    tokio::task::spawn_blocking(asked).await.unwrap()
}

async fn leave(mut call: Call, left: fn(&str) -> bool) -> (u16, Value) {
    let mut unprocessed = HashMap::new();
    for (table, asked) in call.body["RequestItems"].as_object_mut().unwrap() {
        let mut of_table = asked.clone();
        let id = |key: &Value| key["entity_id"]["S"].as_str().unwrap().to_owned();
        let keys = |of: &Value| of["Keys"].as_array().unwrap().clone();
        let (gone, kept): (Vec<_>, Vec<_>) =
            keys(asked).into_iter().partition(|key| left(&id(key)));
        asked["Keys"] = kept.into();
        of_table["Keys"] = gone.into();
        if !keys(&of_table).is_empty() {
            unprocessed.insert(table.clone(), of_table);
        }
    }
    let items = call.body["RequestItems"].as_object_mut().unwrap();
    items.retain(|_, asked| !asked["Keys"].as_array().unwrap().is_empty());
    let (status, mut answer) =
        if items.is_empty() { (200, json!({ "Responses": {} })) } else { pass(call).await };
    answer["UnprocessedKeys"] = json!(unprocessed);
    (status, answer)
}

//! One DynamoDB Local for all tests of a process, on a free port, ended with the process; and its
//! API by hand, so that what is written does not depend on the client that is tested.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

const HOW: &str = "these tests need DynamoDB Local in a folder that DYNAMODB_LOCAL_HOME names: \
                   see scripts/test";

/// The port of the server, which is started if it is not running yet.
pub(crate) fn port() -> u16 {
    static PORT: OnceLock<u16> = OnceLock::new();
    *PORT.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        // The server ends with the thread that started it, and that with the process.
        thread::spawn(move || {
            let (_server, port) = start();
            sender.send(port).unwrap();
            loop {
                thread::park();
            }
        });
        receiver.recv().expect("the thread says the port, or why there is none")
    })
}

/// A name that no other test uses, to begin those of tables with.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{name}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn start() -> (Child, u16) {
    let home = std::env::var_os("DYNAMODB_LOCAL_HOME").map(PathBuf::from);
    let jars = home.expect(HOW).join("lib/*");
    for _ in 0..20 {
        // A port that was free may be another's by the time the server asks for it.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "java", "-Xmx256M", "-XX:+UseSerialGC", "-cp"])
            .arg(&jars)
            .arg("software.amazon.dynamodb.services.local.main.ServerRunner")
            .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need `setpriv` (util-linux) and `java` on the PATH");
        let started = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            if let Ok((200, _)) = post(port, "ListTables", &json!({})) {
                return (child, port);
            }
            assert!(started.elapsed() < Duration::from_secs(120), "it does not answer; {HOW}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("DynamoDB Local ends at once; {HOW}");
}

/// Calls an operation; the status and the body of the answer.
pub(crate) fn post(port: u16, operation: &str, body: &Value) -> std::io::Result<(u16, Value)> {
    let body = body.to_string();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    // Only that there is a signature is checked. In HTTP/1.0 an answer ends with its connection.
    let head = format!(
        "POST / HTTP/1.0\r\nHost: localhost\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\n\
         Content-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=larder/20260101/us-east-1/dynamodb/\
         aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let invalid = || std::io::Error::other("no answer in HTTP");
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or_else(invalid)?;
    let status = answer.get(9..12).and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
    let body = serde_json::from_slice(&answer[head + 4..]).map_err(std::io::Error::other)?;
    Ok((status.ok_or_else(invalid)?, body))
}

/// Calls an operation that succeeds.
pub(crate) fn ask(operation: &str, body: &Value) -> Value {
    let (status, answer) = post(port(), operation, body).unwrap();
    assert_eq!(status, 200, "{operation}: {answer}");
    answer
}

/// Makes a table as Feast does, unless it is there.
pub(crate) fn create_table(table: &str) {
    let body = json!({
        "TableName": table,
        "KeySchema": [{ "AttributeName": "entity_id", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "entity_id", "AttributeType": "S" }],
        "BillingMode": "PAY_PER_REQUEST",
    });
    let (status, answer) = post(port(), "CreateTable", &body).unwrap();
    let there = answer["__type"].as_str().is_some_and(|it| it.ends_with("ResourceInUseException"));
    assert!(status == 200 || there, "{answer}");
}

/// Writes an item as Feast does.
pub(crate) fn put_item(table: &str, id: &str, event_ts: &str, cells: &[(&str, &[u8])]) {
    let cell = |(name, value): &(&str, &[u8])| {
        ((*name).to_owned(), json!({ "B": BASE64_STANDARD.encode(value) }))
    };
    let values: serde_json::Map<_, _> = cells.iter().map(cell).collect();
    let item = json!({
        "entity_id": { "S": id }, "event_ts": { "S": event_ts }, "values": { "M": values },
    });
    ask("PutItem", &json!({ "TableName": table, "Item": item }));
}

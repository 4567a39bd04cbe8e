//! The registry and watches over HTTP, against a server with a fake behind it.

use super::{
    ClientError, Feed, RegistryDoor, Request,
    fake::{FakeDoor, Served},
    serve_registry,
};
use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

const BODY: &str = r#"{"address":"10.0.0.1:80"}"#;

/// Status, head in lower case, body.
async fn ask(address: SocketAddr, method: &str, path: &str, more: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// A registry's own listener, and what it is told.
struct Registry {
    door: Arc<FakeDoor>,
    address: SocketAddr,
    wanted: watch::Sender<Option<Arc<RegistryDoor>>>,
}

impl Registry {
    fn start(token_file: Option<PathBuf>) -> Self {
        let listener = RegistryDoor::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (wanted, doors) = watch::channel(Some(Arc::new(RegistryDoor::new(listener, token_file.as_deref()))));
        let door = Arc::new(FakeDoor::default());
        tokio::spawn(serve_registry(doors, door.clone(), std::future::pending()));
        Self { door, address, wanted }
    }
}

#[tokio::test]
async fn the_admin_port_shows_the_registry_and_says_where_to_change_it() {
    let served = Served::start().await;
    for path in ["/v1/registry", "/v1/registry/checkout", "/v1/registry/checkout/a"] {
        assert_eq!(ask(served.tcp, "GET", path, "", "").await.0, 200, "{path}");
        assert_eq!(ask(served.metrics, "GET", path, "", "").await.0, 404, "{path}");
    }
    for (method, path) in [
        ("PUT", "/v1/registry/checkout/a"),
        ("DELETE", "/v1/registry/checkout/a"),
        ("POST", "/v1/registry/checkout/a/heartbeat"),
    ] {
        let (status, _, body) = ask(served.tcp, method, path, "", BODY).await;
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("admin.sock") && body.contains("discovery.registry.listen"), "{body}");
    }
    assert!(served.door.asked.lock().unwrap().iter().all(|request| !request.is_write()));
    for (method, path, status) in [
        ("POST", "/v1/registry/checkout/a", 405),
        ("PUT", "/v1/registry/checkout", 405),
        ("GET", "/v1/registry/checkout/a/heartbeat", 405),
        ("GET", "/v1/registry/checkout/a/b", 404),
        ("GET", "/v1/registry//a", 404),
        ("GET", "/v1/registry/checkout/", 404),
        ("GET", "/v1/registry?x=1", 400),
        ("GET", "/v1/registry/%zz/a", 400),
    ] {
        assert_eq!(ask(served.tcp, method, path, "", "").await.0, status, "{method} {path}");
    }
}

#[tokio::test]
async fn the_registrys_listener_takes_registrations_and_nothing_else() {
    let registry = Registry::start(None);
    for (method, path, status) in [
        ("PUT", "/v1/registry/checkout/new", 201),
        ("PUT", "/v1/registry/checkout/known", 200),
        ("PUT", "/v1/registry/checkout/%5Bfd00::1%5D:80", 201),
        ("POST", "/v1/registry/checkout/known/heartbeat", 200),
        ("POST", "/v1/registry/checkout/unknown/heartbeat", 404),
        ("DELETE", "/v1/registry/checkout/known", 200),
        ("GET", "/v1/registry", 200),
        ("GET", "/v1/status", 404),
        ("GET", "/metrics", 404),
        ("GET", "/", 404),
        ("GET", "/v1/watch/services/checkout", 404),
        ("POST", "/v1/config/reload", 404),
        ("POST", "/v1/takeover", 404),
    ] {
        assert_eq!(ask(registry.address, method, path, "", BODY).await.0, status, "{method} {path}");
    }
    let asked = registry.door.asked.lock().unwrap();
    let ids: Vec<_> =
        asked.iter().filter_map(|r| if let Request::Register(r) = r { Some(&*r.id) } else { None }).collect();
    assert_eq!(ids, ["new", "known", "[fd00::1]:80"]);
}

#[tokio::test]
async fn who_shows_no_token_is_not_let_in_and_the_door_follows_its_settings() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "secret\n").unwrap();
    let registry = Registry::start(Some(path));
    let put = async |header: &str| ask(registry.address, "PUT", "/v1/registry/checkout/a", header, BODY).await;
    for header in ["", "authorization: Bearer wrong\r\n", "authorization: secret\r\n"] {
        let (status, head, body) = put(header).await;
        assert_eq!(status, 401, "{header}");
        assert!(head.contains("www-authenticate: bearer") && !body.contains("secret"), "{head} {body}");
    }
    assert_eq!(ask(registry.address, "GET", "/v1/registry", "", "").await.0, 401);
    assert_eq!(put("authorization: Bearer secret\r\n").await.0, 201);
    // Another setting, and the same listener.
    let current = registry.wanted.borrow().clone().unwrap();
    let listener = current.listener.try_clone().unwrap();
    drop(current);
    registry.wanted.send_replace(Some(Arc::new(RegistryDoor::new(listener, None))));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!([201, 401].contains(&put("").await.0));
    }
    assert_eq!(put("").await.0, 201);
    registry.wanted.send_replace(None);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(registry.address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_out_nobody_who_shows_the_token() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Two descriptors for each of them.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "secret").unwrap();
    let registry = Registry::start(Some(path));
    let heartbeat =
        b"POST /v1/registry/checkout/known/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n\r\n";
    let mut answer = [0; 1024];
    // One is at rest since it has shown the token.
    let mut known = TcpStream::connect(registry.address).await.unwrap();
    known.write_all(heartbeat).await.unwrap();
    assert!(known.read(&mut answer).await.unwrap() > 0);
    let mut strangers = Vec::new();
    for n in 0..1100 {
        let mut stranger = TcpStream::connect(registry.address).await.unwrap();
        // Some are silent, others speak slowly.
        if n % 2 == 0 {
            stranger.write_all(b"PUT /v1/registry/checkout/a HTTP/1.1\r\n").await.unwrap();
        }
        strangers.push(stranger);
    }
    known.write_all(heartbeat).await.unwrap();
    assert!(known.read(&mut answer).await.unwrap() > 0, "it did not give way");
    for _ in 0..20 {
        let put = ask(registry.address, "PUT", "/v1/registry/checkout/a", "authorization: Bearer secret\r\n", BODY);
        // They would have to go some time anyway, be it after the ten seconds that a head may take.
        assert_eq!(timeout(Duration::from_secs(8), put).await.expect("there is room at once").0, 201);
    }
    assert!(strangers[0].read(&mut answer).await.is_ok_and(|read| read == 0), "it gave way");
}

#[tokio::test]
async fn the_client_registers_and_understands_both_answers() {
    let served = Served::start().await;
    let client = served.client();
    for (id, created) in [("a/b ü", true), ("known", false)] {
        let registration = super::Registration {
            service: "check/out".to_owned(),
            id: id.to_owned(),
            address: "[fd00::1]:80".parse().unwrap(),
            weight: 3,
            zone: "z".to_owned(),
            metadata: [("k".to_owned(), "v".to_owned())].into(),
            ttl: Some("5s".to_owned()),
        };
        let request = Request::Register(registration);
        let registered = client.register(&request).await.unwrap();
        assert_eq!((registered.created, registered.ttl.as_str()), (created, "60s"));
        assert!(client.change(&request).await.is_ok(), "as any other change");
        assert_eq!(served.door.asked.lock().unwrap().last(), Some(&request));
    }
    let heartbeat = Request::Heartbeat { service: "web".to_owned(), id: "unknown".to_owned() };
    let error = client.change(&heartbeat).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused { kind, .. } if kind == "not_found"), "{error}");
}

fn feed(served: &Served) -> Arc<Feed> {
    served.door.feed.get_or_init(|| Feed::new(100)).clone()
}

#[tokio::test]
async fn a_watch_has_a_snapshot_and_what_follows_and_goes_on_where_it_was() {
    let served = Served::start().await;
    let client = served.client();
    let mut events = client.watch("web", None).await.unwrap();
    let first = events.next().await.unwrap();
    assert_eq!((first.id, first.kind.as_str(), first.data.as_str()), (Some(100), "snapshot", "[]"));
    feed(&served).push([("endpoint", "{\"n\":1}".into()), ("removed", "{\"n\":2}".into())]);
    assert_eq!(events.next().await.unwrap().id, Some(101));
    drop(events);
    let mut events = client.watch("web", Some(101)).await.unwrap();
    let next = events.next().await.unwrap();
    assert_eq!((next.id, next.kind.as_str(), next.data.as_str()), (Some(102), "removed", "{\"n\":2}"));
    let mut from_nowhere = client.watch("web", Some(7)).await.unwrap();
    assert_eq!(from_nowhere.next().await.unwrap().kind, "snapshot");
    assert!(
        matches!(client.watch("unknown", None).await, Err(ClientError::Refused { kind, .. }) if kind == "not_found")
    );
    let (status, head, _) = ask(served.tcp, "POST", "/v1/watch/services/web", "", "").await;
    assert!(status == 405 && head.contains("allow: get"), "{head}");
}

#[tokio::test]
async fn watchers_leave_room_for_who_asks_and_end_with_the_server() {
    let mut served = Served::start().await;
    let mut watchers = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(served.tcp).await.unwrap();
        stream.write_all(b"GET /v1/watch/services/web HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 512];
        let n = timeout(Duration::from_secs(10), stream.read(&mut head)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&head[..n]).to_ascii_lowercase().contains("text/event-stream"));
        watchers.push(stream);
    }
    assert_eq!(ask(served.tcp, "GET", "/v1/status", "", "").await.0, 200);
    let began = std::time::Instant::now();
    served.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for mut stream in watchers {
        timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_up_nobody() {
    let served = Served::start().await;
    let mut slow = TcpStream::connect(served.tcp).await.unwrap();
    slow.write_all(b"GET /v1/watch/services/web HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut events = served.client().watch("web", None).await.unwrap();
    events.next().await.unwrap();
    let long: Arc<str> = format!("{{\"x\":\"{}\"}}", "x".repeat(64 << 10)).into();
    let mut last = 100;
    for _ in 0..30 {
        feed(&served).push((0..100).map(|_| ("endpoint", Arc::clone(&long))));
        for _ in 0..100 {
            last += 1;
            assert_eq!(events.next().await.unwrap().id, Some(last));
        }
    }
    let mut read = Vec::new();
    timeout(Duration::from_secs(20), slow.read_to_end(&mut read)).await.expect("it is sent away").unwrap();
    assert!(read.len() < 100 << 20, "{}", read.len());
    assert!(String::from_utf8_lossy(&read[read.len() - 300..]).contains("event: behind"));
}

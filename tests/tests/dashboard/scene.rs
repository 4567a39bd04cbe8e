//! A node with real traffic, for the pictures in `docs/images/`.

use super::look;
use mesh_tests::{Backend, Scripted, Value, Wire, World, get, http_with, json, ports::Port, service};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// How long the daemon is watched before a picture: a minute of line is nicer than a second.
const WATCHED: Duration = Duration::from_secs(40);

/// Services of connections: name, address, endpoints, connects a second.
const TCP: [(&str, &str, usize, u64); 4] = [
    ("postgres", "10.96.0.20:5432", 2, 9),
    ("search", "10.96.0.21:9200", 9, 70),
    ("sessions", "10.96.0.22:6379", 4, 40),
    ("mail", "10.96.0.23:25", 2, 3),
];

/// Services of requests: name, endpoints, milliseconds that an answer takes, requests a second.
const HTTP: [(&str, usize, u64, u64); 4] =
    [("catalog", 6, 2, 120), ("checkout", 4, 9, 60), ("inventory", 3, 4, 35), ("payments", 5, 25, 20)];

/// Sends something and takes it back; an endpoint that is not there is no reason to stop.
fn talk(world: &World, vip: &str, n: u64) {
    let Ok(mut socket) = world.dial(vip) else { return };
    let mut bytes = vec![0; 2000 + usize::try_from(n % 7).unwrap() * 1500];
    let _ = socket.write_all(&bytes).and_then(|()| socket.read_exact(&mut bytes));
}

pub(crate) fn pictures(directory: &Path) {
    let world = World::new().unwrap();
    let port = Port::new();
    let endpoints = |vip: &str, n: usize| -> Vec<String> {
        let net = vip.split('.').nth(3).unwrap().split(':').next().unwrap().to_owned();
        (1..=n).map(|e| format!("10.1.{net}.{e}:8080")).collect()
    };
    let (mut services, mut backends): (Vec<Value>, Vec<Backend>) = (Vec::new(), Vec::new());
    for (name, vip, n, _) in TCP {
        let addresses = endpoints(vip, n);
        // One of them is not there: its circuit opens.
        let there = addresses.iter().skip(usize::from(name == "search"));
        backends.extend(there.map(|address| world.echo(address)));
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        services.push(service(name, &[vip], &addresses));
    }
    let answers = |ms: u64| {
        move |connection: &mut mesh_tests::scripted::Connection, request: &mesh_tests::Message| {
            let spread = request.target().len() as u64 % 7;
            thread::sleep(Duration::from_millis(ms / 2 + ms * spread / 6));
            let status = if request.target().ends_with("0007") { 503 } else { 200 };
            connection.answer(status, &"x".repeat(2000));
        }
    };
    let servers: Vec<Vec<Scripted>> =
        HTTP.iter().map(|(_, n, ms, _)| (0..*n).map(|_| Scripted::each(answers(*ms))).collect()).collect();
    for ((name, ..), servers) in HTTP.iter().zip(&servers) {
        let addresses: Vec<String> = servers.iter().map(Scripted::address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        services.push(http_with(name, &addresses, json!({ "load_balancing": { "policy": "least_connections" } })));
    }
    let mesh = world.setup(Value::Array(services)).with(|config| {
        config["node"]["name"] = json!("node-a");
        config["proxy"] = json!({ "http": port.address() });
    });
    let mesh = mesh.start();
    mesh.cli(&["endpoints", "drain", "sessions", "10.1.22.4:8080"]).done();
    let ended = AtomicBool::new(false);
    let pace = |a_second: u64, mut act: Box<dyn FnMut(u64) + Send>| {
        let ended = &ended;
        move || {
            for n in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // Busier, and less busy, in turns.
                let wave = 1.0 + 0.4 * ((n as f64 / a_second as f64) / 7.0).sin();
                act(n);
                thread::sleep(Duration::from_secs_f64(1.0 / (a_second as f64 * wave)));
            }
        }
    };
    thread::scope(|scope| {
        for (_, vip, _, a_second) in TCP {
            let world = &world;
            scope.spawn(pace(a_second, Box::new(move |n| talk(world, vip, n))));
        }
        for (name, _, _, a_second) in HTTP {
            let mut wire = Wire::connect(&port.address());
            let ask = move |n: u64| drop(wire.ask(get(name, &format!("/items/{}", n % 1000 + 9_000 * (n % 2)))));
            scope.spawn(pace(a_second, Box::new(ask)));
        }
        let _held: Vec<_> = (0..6).map(|at| world.client(TCP[at % 2].1)).collect();
        let mut browser = look(&mesh, "").unwrap();
        let mut take = |name: &str, place: &str, (width, height), scheme: &str, rest| {
            browser.size(width, height);
            browser.scheme(scheme);
            browser.eval(&format!("location.hash = '{place}'"));
            thread::sleep(rest);
            browser.picture(&directory.join(format!("dashboard-{name}.png")));
        };
        fs::create_dir_all(directory).unwrap();
        let soon = Duration::from_secs(3);
        take("services", "#/services", (1280, 830), "light", WATCHED);
        take("service", "#/services/search", (1280, 1000), "dark", soon);
        take("narrow", "#/services", (400, 860), "light", soon);
        ended.store(true, Ordering::Relaxed);
    });
}

//! Services without an address of their own, dialled by name.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use hickory_proto::{op::ResponseCode, rr::RecordType};
use mesh_tests::{
    Backend, Daemon, DnsServer, Value, World,
    daemon::Setup,
    dns::{Manner, Records, ask, ask_by_tcp, ask_with, data},
    eventually, holds, json, world,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

const DNS: &str = "127.0.0.53:53";
const UPSTREAM: &str = "127.0.0.1:5300";

/// An HTTP server that says its name, one request a connection.
fn http(world: &World, name: &'static str, address: &str) -> Backend {
    Backend::new(world.netns(), address, move |mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head);
        let length = name.len() + 1;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}\n");
        let _ = stream.write_all(answer.as_bytes());
    })
}

/// A daemon in the test's namespace that gives addresses and answers names there.
fn setup(world: &World, services: Value) -> Setup {
    world.setup(services).in_netns(world.netns()).with(|config| {
        config["discovery"] = json!({
            "vip_pool": "240.10.0.0/16",
            "dns_listen": DNS,
            "dns": { "servers": [UPSTREAM] },
            "empty_grace": "1s",
        });
    })
}

/// What a program gets that knows nothing of all this, with `/etc/resolv.conf` naming the daemon.
fn curl(world: &World, url: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.53\noptions timeout:1 attempts:2\n").unwrap();
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec curl --silent --show-error --max-time 10 \"$1\"";
    world.run("unshare", &["--mount", "sh", "-c", script, &file.to_string_lossy(), url]).done()
}

fn vips(mesh: &Daemon, service: &str) -> BTreeSet<String> {
    let vips = mesh.service(service)["addresses"].as_array().unwrap().clone();
    vips.iter().map(|vip| vip.as_str().unwrap().to_owned()).collect()
}

fn ip(mesh: &Daemon, service: &str) -> String {
    vips(mesh, service).first().unwrap().rsplit_once(':').unwrap().0.to_owned()
}

#[test]
fn curl_reaches_a_service_by_its_name_alone() {
    let world = world!();
    // Resolvers ask for IPv4 addresses where there is one besides loopback.
    world.netns().ip("address add 10.1.9.9/32 dev lo");
    let upstream = DnsServer::inside(world.netns(), UPSTREAM);
    let (_one, _two) = (http(&world, "one", "10.1.0.1:80"), http(&world, "two", "10.1.0.2:80"));
    let _web = http(&world, "web", "10.1.0.3:8080");
    upstream.set("shop.svc.internal", Records::addresses(&["10.1.0.1"], 1));
    let mesh = setup(
        &world,
        json!([
            { "name": "shop", "dns": "shop.svc.internal:80", "hosts": ["Shop.Example.com"] },
            { "name": "web", "protocol": "http", "endpoints": [{ "address": "10.1.0.3:8080" }] },
        ]),
    )
    .start();
    for name in ["shop.mesh", "SHOP.mesh", "shop", "shop.example.com"] {
        assert_eq!(curl(&world, &format!("http://{name}/")), "one\n", "{name}");
    }
    assert_eq!(curl(&world, "http://web.mesh/"), "web\n", "port 80, wherever its endpoints listen");
    assert_eq!(curl(&world, "http://web.mesh:8080/"), "web\n");
    let before = vips(&mesh, "shop");
    upstream.set("shop.svc.internal", Records::addresses(&["10.1.0.2"], 1));
    holds("the change arrives", || curl(&world, "http://shop.mesh/"), |said| said == "two\n");
    assert_eq!(vips(&mesh, "shop"), before);
}

#[test]
fn names_are_answered_with_vips_and_the_rest_by_others() {
    let world = world!();
    let upstream = DnsServer::inside(world.netns(), UPSTREAM);
    upstream.set("www.example.org", Records::addresses(&["192.0.2.1", "2001:db8::1"], 77));
    upstream.set("broken.example.org", Records::none(1).that(Manner::Fails));
    upstream.set("silent.example.org", Records::none(1).that(Manner::IsSilent));
    let many: Vec<String> = (1..=100).map(|n| format!("192.0.2.{n}")).collect();
    upstream.set("many.example.org", Records::addresses(&many.iter().map(String::as_str).collect::<Vec<_>>(), 1));
    let six = json!({ "name": "six", "addresses": ["[fd00::10]:80"], "endpoints": [] });
    let shop = json!({ "name": "shop", "hosts": ["shop.example.com"],
        "endpoints": [{ "address": "10.1.0.1:80" }, { "address": "10.1.0.2:8443" }] });
    let mesh = setup(&world, json!([shop, six])).start();
    let ip = ip(&mesh, "shop");
    let netns = world.netns();
    for name in ["shop.mesh", "shop", "shop.example.com", "sHoP.mEsH"] {
        let answer = ask(netns, DNS, name, RecordType::A);
        assert_eq!(data(&answer), [ip.as_str()], "{name}");
        assert!(answer.answers.iter().all(|record| record.ttl == 5));
        assert!(answer.metadata.authoritative);
        assert_eq!(data(&ask(netns, DNS, name, RecordType::AAAA)), [""; 0]);
    }
    assert_eq!(data(&ask(netns, DNS, "six.mesh", RecordType::AAAA)), ["fd00::10"]);
    let srv = ask(netns, DNS, "_http._tcp.shop.mesh", RecordType::SRV);
    assert_eq!(data(&srv), ["0 1 80 shop.mesh.", "0 1 8443 shop.mesh."]);
    assert_eq!(srv.additionals.len(), 1);
    let none = ask(netns, DNS, "nobody.mesh", RecordType::A);
    assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::NXDomain, 1));
    let nodata = ask(netns, DNS, "six.mesh", RecordType::A);
    assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));

    let other = ask(netns, DNS, "www.example.org", RecordType::A);
    assert_eq!(
        (data(&other), other.answers[0].ttl, other.metadata.authoritative),
        (vec!["192.0.2.1".to_owned()], 77, false)
    );
    assert_eq!(data(&ask(netns, DNS, "www.example.org", RecordType::AAAA)), ["2001:db8::1"]);
    assert_eq!(ask(netns, DNS, "gone.example.org", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    for name in ["broken.example.org", "silent.example.org"] {
        assert_eq!(ask(netns, DNS, name, RecordType::A).metadata.response_code, ResponseCode::ServFail, "{name}");
    }
    let short = ask_with(netns, DNS, "many.example.org", RecordType::A, None).unwrap();
    assert!(short.metadata.truncation && short.to_vec().unwrap().len() <= 512);
    assert_eq!(ask_by_tcp(netns, DNS, "many.example.org", RecordType::A).unwrap().answers.len(), 100);
    assert_eq!(ask_with(netns, DNS, "many.example.org", RecordType::A, Some(4096)).unwrap().answers.len(), 100);
}

#[test]
fn who_registers_takes_no_name_that_means_something_to_others() {
    let world = world!();
    let upstream = DnsServer::inside(world.netns(), UPSTREAM);
    for name in ["github.com", "printer", "localhost"] {
        upstream.set(name, Records::addresses(&["192.0.2.1"], 77));
    }
    upstream.set("broken", Records::none(1).that(Manner::Fails));
    let shop = json!({ "name": "shop", "hosts": ["api.example.com"], "endpoints": [{ "address": "10.1.0.1:80" }] });
    let mesh = setup(&world, json!([shop])).start();
    for name in ["github.com", "printer", "localhost", "wpad", "cart", "broken", "api.example.com"] {
        mesh.cli(&["register", name, "10.1.0.9:80"]).done();
    }
    let answers = |name: &str, kind| data(&ask(world.netns(), DNS, name, kind));
    for name in ["github.com", "printer", "localhost"] {
        assert_eq!(answers(name, RecordType::A), ["192.0.2.1"], "{name}: as others have it");
        assert_eq!(answers(&format!("{name}.mesh"), RecordType::A), [ip(&mesh, name)], "{name}");
    }
    // Nobody else knows it, or has anything to say.
    for name in ["cart", "broken"] {
        assert_eq!(answers(name, RecordType::A), [ip(&mesh, name)], "{name}");
        assert_eq!(answers(&format!("_x._tcp.{name}"), RecordType::SRV), [format!("0 1 80 {name}.")], "{name}");
    }
    assert_eq!(ask(world.netns(), DNS, "wpad", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answers("api.example.com", RecordType::A), [ip(&mesh, "shop")]);
    let warnings = mesh.cli(&["status", "-o", "json"]).json()["warnings"].to_string();
    assert!(warnings.contains("api.example.com: it is one of the hosts of shop"), "{warnings}");
    let udp = ask(world.netns(), DNS, "_http._udp.shop.mesh", RecordType::SRV);
    assert_eq!((udp.metadata.response_code, udp.authorities.len()), (ResponseCode::NoError, 1));
}

#[test]
fn a_service_that_nobody_serves_keeps_its_ports_over_a_restart_and_refuses() {
    let world = world!();
    let mut mesh = setup(&world, json!([{ "name": "shop" }])).start();
    mesh.cli(&["register", "shop", "10.1.0.1:8080"]).done();
    let before = vips(&mesh, "shop");
    let vip = before.first().unwrap().clone();
    mesh.cli(&["deregister", "shop", "10.1.0.1:8080"]).done();
    assert_eq!(world.dial(&vip).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    for crash in [false, true] {
        if crash {
            mesh.kill();
        } else {
            mesh.terminate();
        }
        mesh.start();
        assert_eq!(vips(&mesh, "shop"), before);
        assert_eq!(data(&ask(world.netns(), DNS, "shop.mesh", RecordType::A)), [ip(&mesh, "shop")]);
        assert_eq!(world.dial(&vip).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }
}

#[test]
fn an_instance_at_the_vip_of_a_service_is_left_out_and_said() {
    let world = world!();
    let mesh = setup(&world, json!([{ "name": "shop", "endpoints": [{ "address": "10.1.0.1:80" }] }]));
    let mesh = mesh.start();
    let vip = vips(&mesh, "shop").first().unwrap().clone();
    mesh.cli(&["register", "cart", &vip]).ended(1).refused(&[&vip, "a VIP of the service shop"]);
    // One that comes before the service does is left out when it comes.
    mesh.cli(&["register", "cart", "10.96.0.1:80"]).done();
    assert_eq!(mesh.service("cart")["endpoints"]["total"], 1);
    let mut mesh = mesh;
    mesh.set_services(json!([{ "name": "web", "addresses": ["10.96.0.1:80"] }]));
    assert_eq!(mesh.service("cart")["endpoints"]["total"], 0);
    let warnings = mesh.cli(&["status", "-o", "json"]).json()["warnings"].to_string();
    assert!(warnings.contains("10.96.0.1:80 of cart: a VIP of the service web"), "{warnings}");
}

#[test]
fn garbage_gets_no_one_far_and_a_circle_is_no_circle() {
    let world = world!();
    let mesh = setup(&world, json!([{ "name": "shop", "endpoints": [{ "address": "10.1.0.1:80" }] }]))
        .with(|config| config["discovery"]["dns"]["servers"] = json!([DNS]));
    let mesh = mesh.start();
    let answer = ask(world.netns(), DNS, "www.example.org", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    world.netns().enter(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for text in [
            &b""[..],
            b"x",
            &[0xff; 12],
            &[0; 500],
            b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
        ] {
            socket.send_to(text, DNS).unwrap();
        }
    });
    assert_eq!(data(&ask(world.netns(), DNS, "shop.mesh", RecordType::A)).len(), 1);
    assert!(!mesh.log().contains("panicked"), "{}", mesh.log());
}

#[test]
fn addresses_stay_over_restarts_and_a_torn_file_is_set_aside() {
    let world = world!();
    let service = |name: &str| json!({ "name": name, "endpoints": [{ "address": "10.1.0.1:80" }] });
    let mut mesh = setup(&world, json!([service("a"), service("b")]))
        .with(|config| config["discovery"]["vip_pool"] = json!("240.10.0.0/30"))
        .start();
    let before = (vips(&mesh, "a"), vips(&mesh, "b"));
    assert_ne!(before.0, before.1);
    let file = mesh.dir().join("state/vips.json");
    holds("they are written down", || file.exists(), |exists| *exists);
    mesh.kill();
    // The one that would come first has to go round the other's.
    mesh.configure(|config| config["services"] = json!([service("0"), service("b"), service("a")]));
    mesh.start();
    assert_eq!((vips(&mesh, "a"), vips(&mesh, "b")), before);
    assert_eq!(vips(&mesh, "0").len(), 0);
    let status = mesh.cli(&["status", "-o", "json"]).json().to_string();
    assert!(status.contains("0: no address is left for them"), "{status}");
    mesh.set_services(json!([service("0"), service("a")]));
    assert_eq!(vips(&mesh, "0"), before.1, "b is gone, and there is no other");
    assert_eq!(vips(&mesh, "a"), before.0);
    mesh.kill();
    fs::write(&file, "{\"version\":1,\"serv").unwrap();
    mesh.start();
    assert!(file.with_extension("json.bad").exists());
    let status = mesh.cli(&["status", "-o", "json"]).json();
    assert!(status["warnings"].to_string().contains("vips.json.bad"), "{status}");
    assert_eq!(vips(&mesh, "a").len(), 1);
}

#[test]
fn where_names_are_answered_follows_the_file() {
    let world = world!();
    let service = json!({ "name": "shop", "endpoints": [{ "address": "10.1.0.1:80" }] });
    let taken = DnsServer::inside(world.netns(), DNS);
    let mut mesh = setup(&world, json!([service])).start();
    let warnings = |mesh: &Daemon| mesh.cli(&["status", "-o", "json"]).json()["warnings"].to_string();
    assert!(warnings(&mesh).contains("somebody else listens at 127.0.0.53:53"), "{}", warnings(&mesh));
    drop(taken);
    let answered = |at: &'static str| {
        let world = &world;
        move || ask_with(world.netns(), at, "shop.mesh", RecordType::A, None).map(|answer| data(&answer).len())
    };
    eventually("it is tried again", || match answered(DNS)() {
        Ok(1) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(!warnings(&mesh).contains("dns_listen"), "{}", warnings(&mesh));
    mesh.configure(|config| config["discovery"]["dns_listen"] = json!("127.0.0.54:53"));
    mesh.reload();
    assert_eq!(answered("127.0.0.54:53")().unwrap(), 1);
    assert!(ask_by_tcp(world.netns(), DNS, "shop.mesh", RecordType::A).is_err(), "no longer there");
    mesh.configure(|config| config["discovery"]["dns_listen"] = json!(""));
    mesh.reload();
    holds("nowhere", || ask_by_tcp(world.netns(), "127.0.0.54:53", "shop.mesh", RecordType::A).is_err(), |gone| *gone);
}

#[test]
fn takeovers_leave_no_question_without_an_answer() {
    let world = world!();
    let mut mesh = setup(&world, json!([{ "name": "shop", "endpoints": [{ "address": "10.1.0.1:80" }] }])).start();
    let ip = ip(&mesh, "shop");
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let answer = ask(world.netns(), DNS, "shop.mesh", RecordType::A);
                assert_eq!(data(&answer), [ip.as_str()]);
                let answer = ask_by_tcp(world.netns(), DNS, "shop.mesh", RecordType::A).expect("an answer by TCP");
                assert_eq!(data(&answer), [ip.as_str()]);
                asked.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..5 {
            mesh.take_over();
            assert!(!asking.is_finished(), "somebody got no answer");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() > 20);
}

//! A node in miniature, with all of the product on it: pods in namespaces and cgroups as a kubelet and a CNI plugin make
//! them, services from a cluster, and one daemon in the host's namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

#[macro_use]
mod stage;
mod ipv6;

use hickory_proto::rr::RecordType;
use mesh_tests::{Client, Pod, Value, dns, holds, json, node::HOST};
use stage::{Server, ask, captured, connections, sum};
use std::fs;

/// An HTTP service, one that echoes, and one that says who answers.
const WEB: &str = "10.96.0.10:80";
const ECHO: &str = "10.96.0.20:7";
const WHO: &str = "10.96.0.30:17";

#[test]
fn pods_that_were_there_before_and_those_that_come_are_served_named_and_counted() {
    let stage = stage!("10.96.0.");
    let first = stage.server("server-1", 11);
    let early = stage.pod("client-1", 21);
    stage.route(&[&first]);
    let mesh = stage.daemon();

    // In the kernel: whose connection it is, and every byte of it.
    let client = |pod: &Pod, bytes: usize| {
        let mut client = pod.inside.client(ECHO);
        client.exchange(bytes);
        client
    };
    let named = |pod: &Pod, client: &Client, bytes: usize| {
        let ours = |row: &Value| row["client"]["pid"] == client.pid();
        let rows = || connections(&mesh, "echo.shop").into_iter().filter(ours).collect::<Vec<_>>();
        let counted = |row: &Value| row["sent_bytes"] == bytes && row["received_bytes"] == bytes;
        let row = holds("listed", rows, |rows| rows.len() == 1 && counted(&rows[0])).remove(0);
        let expected = json!({
            "address": client.local.to_string(),
            "pid": client.pid(),
            "command": "mesh-test-peer",
            "cgroup": pod.inside.cgroup().name(),
            "netns": pod.inside.netns().inode(),
            "pod": format!("shop/{}", pod.name()),
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&row["client"][key], value, "{key}: {row:#}");
        }
        assert!(row["client"]["address"].as_str().unwrap().starts_with(pod.address()), "{row:#}");
        assert_eq!((&row["original_destination"], &row["path"]), (&json!(ECHO), &json!("direct")));
    };
    let one = client(&early, 100_000);
    named(&early, &one, 100_000);

    // Through the daemon: the endpoint sees the pod, not the node.
    assert_eq!(captured(&early.inside, WEB), ["server-1", early.address(), "1.1 mesh"]);
    let of_daemon = |row: &Value| {
        let client = &row["client"];
        (row["path"] == "proxied", client["command"] == "mesh", client["netns"] == early.inside.netns().inode())
            == (true, true, true)
    };
    let rows = || connections(&mesh, "web.shop");
    let rows = holds("so does the kernel", rows, |rows| rows.iter().any(of_daemon));
    assert!(rows.iter().all(|row| row["client"]["address"].as_str().unwrap().starts_with(early.address())), "{rows:?}");
    let requests = || sum(&mesh, "http_requests_total", "web.shop");
    let before = requests();
    (0..10).for_each(|_| drop(captured(&early.inside, WEB)));
    assert_eq!(requests() - before, 10.0);

    // A server and a client that come later are like those that were there.
    let second = stage.server("server-2", 12);
    stage.route(&[&first, &second]);
    let late = stage.pod("client-2", 22);
    let answers = || [(); 2].map(|()| late.inside.ask(WHO).unwrap_or_else(|e| e.to_string()));
    holds("both servers answer", answers, |[one, other]| {
        one != other && [one, other].iter().all(|a| a.starts_with("server-"))
    });
    let two = client(&late, 23_456);
    named(&late, &two, 23_456);
    assert_eq!(captured(&late.inside, WEB)[1], late.address());
    assert_eq!(captured(&early.inside, WEB)[1], early.address());
    let host = captured(&stage.node.host, WEB);
    assert_eq!(host[1], HOST, "a process of the host comes from the host");

    // Names are asked for by UDP, which is left alone, and are VIPs.
    let socket: std::net::UdpSocket = late.inside.udp(socket2::Domain::IPV4).into();
    socket.connect((HOST, 53)).unwrap();
    let answer = dns::ask_over(&socket, "web.shop.mesh", RecordType::A).unwrap();
    assert_eq!(dns::data(&answer), ["10.96.0.10"]);

    // One pod goes, with all it had: the daemon holds nothing of it.
    drop((two, socket, late));
    stage.kube.delete("pods", "shop/client-2");
    let rows = || connections(&mesh, "echo.shop");
    holds("its connection ends", rows, |rows| rows.len() == 1 && rows[0]["client"]["pid"] == one.pid());
    assert!(stage.node.has_network_of(21));
    holds("its network ends", || stage.node.has_network_of(22), |there| !there);
    drop(one);
    holds("all are closed", || sum(&mesh, "mesh_tcp_connections_active", "echo.shop"), |n| *n == 0.0);
    let bytes = ["mesh_tcp_sent_bytes_total", "mesh_tcp_received_bytes_total"].map(|m| sum(&mesh, m, "echo.shop"));
    assert_eq!(bytes, [123_456.0; 2]);
    assert_eq!(sum(&mesh, "mesh_tcp_connections_opened_total", "echo.shop"), 2.0);
    assert_eq!(sum(&mesh, "mesh_tcp_connect_failures_total", "echo.shop"), 0.0);
}

#[test]
fn traffic_leaves_a_pod_that_dies_and_comes_back_with_it() {
    let stage = stage!("10.96.0.");
    let (mut first, second) = (stage.server("server-1", 11), stage.server("server-2", 12));
    let client = stage.pod("client-1", 21);
    stage.route(&[&first, &second]);
    let mesh = stage.daemon();
    captured(&client.inside, WEB);
    let who = || client.inside.ask(WHO).unwrap_or_else(|e| e.to_string());
    holds("both servers answer", || [who(), who()], |[one, other]| one != other);
    let circuit = |service: &str, server: &Server, port: u16| {
        mesh.endpoint(service, &format!("{}:{port}", server.pod.address()))["circuit"].clone()
    };

    // Its processes die, and the network refuses in their place.
    first.processes.clear();
    let mut failed = 0;
    let dial = || {
        failed += u32::from(client.inside.ask(WHO).is_err());
        circuit("who.shop", &first, 1717)
    };
    holds("its circuit opens", dial, |state| *state == "open");
    assert_eq!(failed, 5, "after five failures");
    for _ in 0..10 {
        assert_eq!(who(), "server-2");
        assert_eq!(
            ask(&client.inside, WEB).as_ref().map(|said| said[0].as_str()),
            Ok("server-2"),
            "requests are tried again"
        );
    }

    // Its container is started again.
    first.start();
    for service in ["web.shop", "who.shop"] {
        mesh.cli(&["circuit", "reset", service]).done();
    }
    let both = |said: &[String; 2]| said[0] != said[1] && said.iter().all(|who| who.starts_with("server-"));
    holds("it has its share again", || [who(), who()], both);

    // A pod goes without a word, and nobody answers in its place.
    let gone = second.pod.address().to_owned();
    drop(second);
    let alone = || (0..4).map(|_| who()).collect::<Vec<_>>();
    holds("the other one serves all", alone, |said| said.iter().all(|who| who == "server-1"));
    let request = || ask(&client.inside, WEB).map(|said| said[0].clone());
    let _ = holds("requests too", request, |server| server.as_deref() == Ok("server-1"));
    assert_ne!(mesh.endpoint("who.shop", &format!("{gone}:1717"))["circuit"], "closed");
    stage.route(&[&first]);
    holds("the cluster knows", || mesh.service("who.shop")["endpoints"]["total"].clone(), |total| *total == 1);
    assert_eq!(alone(), ["server-1"; 4]);
}

#[test]
fn a_node_lives_on_without_its_daemon_and_is_as_before_once_it_is_unloaded() {
    let stage = stage!("10.96.0.");
    let (first, second) = (stage.server("server-1", 11), stage.server("server-2", 12));
    let client = stage.pod("client-1", 21);
    stage.route(&[&first, &second]);
    let mut mesh = stage.daemon();
    captured(&client.inside, WEB);
    let mut open = client.inside.client(ECHO);
    open.exchange(10_000);

    // A daemon that is killed before it wrote that down forgets it.
    let known = || fs::read_to_string(mesh.dir().join("state/discovered.json")).unwrap_or_default();
    holds("it is written down", known, |known| known.contains("web.shop") && known.contains(second.pod.address()));
    mesh.kill();
    open.exchange(5_000);
    let hammer = client.inside.hammer(&[WHO]);
    // Also one that the daemon never heard of.
    let late = stage.pod("client-2", 22);
    let mut other = late.inside.client(ECHO);
    other.exchange(700);
    for pod in [&client, &late] {
        let [server, seen, way] = ask(&pod.inside, WEB).unwrap();
        assert!(server.starts_with("server-"));
        assert_eq!([seen.as_str(), way.as_str()], [pod.address(), "direct"], "past the daemon");
    }
    let tally = hammer.stop();
    tally.assert_flawless();
    assert_eq!(tally.answered(WHO), ["server-1", "server-2"]);

    mesh.start();
    holds("bytes of all three times", || sum(&mesh, "mesh_tcp_sent_bytes_total", "echo.shop"), |n| *n == 15_700.0);
    assert_eq!(sum(&mesh, "mesh_tcp_connections_opened_total", "who.shop"), tally.connects as f64);
    let pods: Vec<Value> = connections(&mesh, "echo.shop").iter().map(|row| row["client"]["pod"].clone()).collect();
    assert_eq!(pods, ["shop/client-1", "shop/client-2"].map(|pod| json!(pod)));
    for pod in [&client, &late] {
        assert_eq!(captured(&pod.inside, WEB)[1], pod.address());
    }

    assert!(mesh.terminate().success());
    mesh.unload(&[]).done();
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    open.exchange(1_000);
    for vip in [WHO, WEB] {
        let error = client.inside.dial(vip).unwrap_err().raw_os_error();
        assert!(matches!(error, Some(libc::ENETUNREACH | libc::EHOSTUNREACH)), "a VIP is nothing any more: {error:?}");
    }
    drop((open, other));
    drop((client, late));
    holds(
        "nobody holds their networks",
        || [21, 22].map(|n| stage.node.has_network_of(n)),
        |there| *there == [false; 2],
    );
}

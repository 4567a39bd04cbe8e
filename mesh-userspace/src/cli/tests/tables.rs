//! What do people see?

use super::PLAIN;
use crate::{
    api::{Endpoint, Service, Status, Time, sample},
    cli::{
        output::Style,
        rates::{Rated, Rates},
        views,
    },
};
use std::time::Duration;

#[test]
fn services_as_a_table() {
    assert_eq!(
        views::services(&sample::services(), PLAIN),
        "\
NAME      ADDRESSES                            PROTOCOL  POLICY       HEALTHY  CIRCUIT  ACTIVE  TOTAL  REFUSED     SENT  RECEIVED  NOTE
checkout  10.96.0.10:80 [fd00::10]:80 +1 more  http      round_robin  2/2      closed        3  1,204        7  1.5 KiB    20 MiB  1 draining
search    10.96.0.20:9200                      tcp       random       0/0      closed        0      0        0      0 B       0 B  1 draining
"
        .replace("0 B       0 B  1 draining", "0 B       0 B  -")
    );
}

#[test]
fn a_service_that_is_not_intercepted_says_why() {
    let mut services = vec![Service {
        intercepted: false,
        not_intercepted_reason: Some("mode is userspace".to_owned()),
        ..sample::services().remove(1)
    }];
    let table = views::services(&services, PLAIN);
    assert!(table.ends_with("not intercepted: mode is userspace\n"), "{table}");
    services[0].intercepted = true;
    assert!(!views::services(&services, PLAIN).contains("NOTE"));
}

#[test]
fn a_service_with_its_endpoints() {
    assert_eq!(
        views::service(&sample::services()[0], &sample::endpoints(), PLAIN),
        "\
Service       checkout
Addresses     10.96.0.10:80, [fd00::10]:80, 10.96.0.11:443
Protocol      http
Policy        round_robin
Circuit       closed
Endpoints     2 of 2 healthy, 1 draining
Connections   3 active, 1,204 in total, 7 failed
Bytes         1.5 KiB sent, 20 MiB received by clients; 12 segments sent again
Requests      2 active, 31,006 in total, answered by mesh itself: 13 (rate_limited 9, no_endpoint 4)
Refused       7 (family_mismatch 5, no_endpoint 2)
Local trouble 1 connects had no route or no free local port

ADDRESS           WEIGHT  ZONE        HEALTH   CIRCUIT  DRAINING  ACTIVE  REQUESTS  TOTAL  FAILURES     SENT  RECEIVED  RETRANSMITS  CONNECT  LATENCY
10.0.1.5:8080          2  eu-west-1a  healthy  closed   no             3         0  1,204         7  1.5 KiB    20 MiB           12  0.25 ms  1.25 ms
[fd00:1::5]:8080       0  -           unknown  closed   yes            0         0      0         0      0 B       0 B            0        -        -
"
    );
    assert!(
        views::service(&sample::services()[1], &[], PLAIN)
            .ends_with("\nIt has no endpoints: connections to it are refused.\n")
    );
}

#[test]
fn what_nobody_counts_is_no_zero() {
    let uncounted = Service {
        retransmits_total: None,
        connects_local_trouble_total: None,
        connects_refused_total: None,
        connects_passed_total: None,
        ..sample::services().remove(0)
    };
    let endpoint = Endpoint { retransmits_total: None, picked_total: None, ..sample::endpoints().remove(0) };
    let text = views::service(&uncounted, &[endpoint], PLAIN);
    assert!(text.contains("\nBytes         1.5 KiB sent, 20 MiB received by clients\n"), "{text}");
    assert!(!text.contains("\nRefused") && !text.contains("\nLocal trouble"), "{text}");
    assert!(text.contains("20 MiB            -  0.25 ms"), "{text}");
    let table = views::services(&[uncounted], PLAIN);
    assert!(table.contains("  1,204        -  1.5 KiB"), "{table}");
}

#[test]
fn endpoints_as_a_table() {
    let table = views::endpoints(&sample::endpoints(), PLAIN);
    let first: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(first, ["SERVICE", "checkout", "checkout"]);
}

#[test]
fn connections_as_a_table() {
    let mut connections: Vec<Rated> = sample::connections().into_iter().map(Rated::from).collect();
    assert_eq!(
        views::connections(&connections, PLAIN),
        "\
SERVICE   ENDPOINT          CLIENT          PROCESS     CGROUP               NETNS  DIALLED        STATE           SENT  RECEIVED     RTT  RETRANSMITS     AGE
checkout  10.0.1.5:8080     10.0.9.1:40000  curl[4711]  /shop/frontend  4026531840  10.96.0.10:80  established  1.5 KiB    20 MiB  250 µs            2   1m 1s
-         [fd00:1::5]:8080  -               -           -               4026531840  [fd00::10]:80  syn_sent         0 B       0 B       -            0  120 ms
"
    );
    for rated in &mut connections {
        rated.rates = Some(Rates { sent: Some(1536.0), received: None });
    }
    let table = views::connections(&connections, PLAIN);
    assert!(table.lines().all(|line| line.split_whitespace().count() >= 15), "{table}");
    assert!(table.contains("SENT/S  RECEIVED/S") && table.contains("1.5 KiB/s           -"), "{table}");
}

#[test]
fn circuits_as_a_table() {
    assert_eq!(
        views::circuits(&sample::circuits(), sample::noon(), PLAIN),
        "\
SERVICE   ENDPOINT          STATE   FAILURES  OPENINGS  RETRY      FORCED
checkout  10.0.1.5:8080     closed         2         0  -          no
checkout  10.0.1.6:8080     open           5         3  in 1m 30s  no
checkout  [fd00:1::5]:8080  open           0         0  -          yes
"
    );
    let later = Time::from(sample::noon().system_time() + Duration::from_secs(90));
    assert!(views::circuits(&sample::circuits(), later, PLAIN).contains("  now  "));
}

#[test]
fn lines_of_the_log_as_a_table_and_one_by_one() {
    let lines = sample::logs();
    assert_eq!(
        views::logs(&lines, PLAIN),
        "\
TIME                      SERVICE   ENDPOINT       CLIENT           STATUS  DURATION    SENT  RECEIVED  REASON          WHAT
2026-01-31T12:00:00.000Z  checkout  10.0.1.5:8080  10.0.9.1:40000      503   12.5 ms     0 B   1.5 KiB  upstream_reset  GET /cart?\\u{1b}[2J
2026-01-31T12:00:00.000Z  checkout  10.0.1.5:8080  [fd00::9]:40000       -     1m 1s  20 MiB   1.5 KiB  -               connection evil\\u{7}[4711]
2026-01-31T12:00:00.000Z  checkout  -              -                     -    900 ms     0 B       0 B  no_endpoint     connection evil\\u{7}[4711] to [fd00::10]:80, 17 times
"
    );
    let first = views::log(&lines[0], true, PLAIN);
    let second = views::log(&lines[1], false, PLAIN);
    assert_eq!((first.lines().count(), second.lines().count()), (2, 1));
    let column = |text: &str, word: &str| text.lines().last().unwrap().find(word).unwrap();
    assert_eq!(column(&first, "10.0.1.5"), column(&second, "10.0.1.5"), "{first}{second}");
    assert_eq!(column(&first, "GET"), column(&second, "connection"), "{first}{second}");
}

#[test]
fn an_explanation_for_people() {
    assert_eq!(
        views::explanation(&sample::explanation(), PLAIN),
        "\
Address   10.96.0.10:80
Service   checkout
Policy    round_robin
Decision  forwarded
          The connection goes to one of 1 endpoints, each in turn.

ADDRESS           WEIGHT  SHARE  HEALTH   CIRCUIT  DRAINING  CANDIDATE  REASON
10.0.1.5:8080          2  100 %  healthy  closed   no        yes        takes connections
[fd00:1::5]:8080       0    0 %  unknown  closed   yes       no         draining
"
    );
}

#[test]
fn an_explanation_of_a_request_names_the_services_that_its_route_leads_to() {
    let mut explanation = sample::explanation();
    explanation.route = Some("2: path_prefix /v2".to_owned());
    explanation.explanation = "goes elsewhere\nby route 2: path_prefix /v2".to_owned();
    explanation.endpoints.truncate(1);
    explanation.endpoints[0].service = Some("checkout-v2".to_owned());
    assert_eq!(
        views::explanation(&explanation, PLAIN),
        "\
Address   10.96.0.10:80
Service   checkout
Route     2: path_prefix /v2
Policy    round_robin
Decision  forwarded
          goes elsewhere
          by route 2: path_prefix /v2

SERVICE      ADDRESS        WEIGHT  SHARE  HEALTH   CIRCUIT  DRAINING  CANDIDATE  REASON
checkout-v2  10.0.1.5:8080       2  100 %  healthy  closed   no        yes        takes connections
"
    );
}

#[test]
fn status_for_people() {
    let now = Time::from(sample::noon().system_time() + Duration::from_secs(3 * 3600 + 12 * 60));
    assert_eq!(
        views::status(&sample::status(), now, PLAIN),
        "\
Node          node-a
Version       0.1.0
Uptime        3h 12m (pid 4312)
Mode          ebpf
Bypass        off
Interception  works
Proxy         requests at 127.0.0.1:3000; 2 workers, 12 connections of clients
Cgroup        /sys/fs/cgroup
Pinned in     /sys/fs/bpf/mesh
Configuration /etc/mesh/mesh.yaml, loaded 3h 12m ago (2026-01-31T12:00:00.000Z)
              last load refused, the one before stays: services[0].name: \"A\" is no name
                services[1].addresses[0]: port 0
Services      2
Endpoints     2
Connections   3 open
Memory        12 MiB resident, 8 MiB in the kernel

Programs
  NAME               HOOK                 ATTACHED  WHY NOT
  mesh_connect4      cgroup/connect4      yes       -
  mesh_getpeername4  cgroup/getpeername4  no        this kernel has no such hook

Maps
  NAME       ENTRIES   CAPACITY    USED  MEMORY
  ENDPOINTS       12     65,536  0.02 %   6 MiB
  SLOTS            -  1,048,576       -       -

Sources
  NAME    SYNCED  UPDATED
  config  yes     3h 12m ago

Warnings
  service search: 127.0.0.1:80 is a loopback address
"
    );
}

#[test]
fn trouble_is_said_loudly() {
    let status = Status { bypass: true, interception_ok: Some(false), ..sample::status() };
    let text = views::status(&status, sample::noon(), Style { color: true });
    assert!(text.contains("\x1b[31mon: every connection passes untouched\x1b[0m"), "{text:?}");
    assert!(text.contains("\x1b[31mdoes NOT work"), "{text:?}");
}

use super::*;
use crate::api::{ConnectionOrder, Policy, Registration, Since, registration};
use proptest::prelude::*;
use std::{net::SocketAddr, time::Duration};

fn request() -> impl Strategy<Value = Request> {
    let text = || ".{1,20}";
    let maybe = || proptest::option::of(".{1,20}");
    let address = || any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from);
    let target = move || (text(), address(), any::<bool>());
    prop_oneof![
        Just(Request::Status),
        maybe().prop_map(|name| Request::Services { name }),
        maybe().prop_map(|service| Request::Endpoints { service }),
        (
            maybe(),
            proptest::option::of(address()),
            proptest::option::of(proptest::sample::select(ConnectionOrder::ALL)),
            proptest::option::of(1..=u32::MAX),
        )
            .prop_map(|(service, endpoint, sort, limit)| {
                Request::Connections(Connections { service, endpoint, sort, limit })
            }),
        (address(), maybe(), maybe(), maybe()).prop_map(|(address, host, path, zone)| Request::Explain {
            address,
            host,
            path,
            zone
        }),
        (
            (maybe(), proptest::option::of(address()), proptest::option::of("[1-5]xx(,[1-5][0-9]{2})?")),
            (proptest::option::of("GET|GET,POST"), proptest::option::of(".{1,20}"), any::<Option<u32>>()),
            (proptest::option::of("[0-9a-f]{1,32}"), any::<Option<u32>>(), proptest::option::of(1..=u32::MAX)),
        )
            .prop_map(|((service, endpoint, status), (method, path, ms), (trace, ago, limit))| {
                Request::Logs(Box::new(Logs {
                    service,
                    endpoint,
                    status: status.map(|status| status.parse().unwrap()),
                    method: method.map(|method| method.parse().unwrap()),
                    path: path.map(|path| path.parse().unwrap()),
                    duration: ms.map(|ms| format!(">={ms}ms").parse().unwrap()),
                    trace: trace.map(|trace| trace.parse().unwrap()),
                    since: ago.map(|ago| Since::Ago(Duration::from_millis(ago.into()))),
                    limit,
                }))
            }),
        Just(Request::LogLevels),
        text().prop_map(|directive| Request::SetLogLevel { directive }),
        (maybe(), proptest::option::of(1..=u32::MAX))
            .prop_map(|(service, limit)| Request::Traces(Traces { service, limit })),
        "[0-9a-fx ]{1,40}".prop_map(|id| Request::Trace { id }),
        Just(Request::ConfigDump),
        Just(Request::ConfigReload),
        target().prop_map(|(service, address, persist)| Request::EndpointDrain { service, address, persist }),
        target().prop_map(|(service, address, persist)| Request::EndpointUndrain { service, address, persist }),
        (target(), any::<u16>()).prop_map(|((service, address, persist), weight)| Request::EndpointWeight {
            service,
            address,
            weight,
            persist
        }),
        (text(), proptest::sample::select(Policy::ALL), any::<bool>())
            .prop_map(|(service, policy, persist)| Request::LbSet { service, policy, persist }),
        maybe().prop_map(|service| Request::Circuits { service }),
        (text(), proptest::option::of(address()))
            .prop_map(|(service, address)| Request::CircuitTrip { service, address }),
        (text(), proptest::option::of(address()))
            .prop_map(|(service, address)| Request::CircuitReset { service, address }),
        (text(), any::<Option<u32>>(), any::<Option<u64>>(), any::<bool>()).prop_map(
            |(service, failure_threshold, reset, persist)| Request::CircuitSet {
                service,
                failure_threshold,
                reset_timeout: reset.map(Duration::from_millis),
                persist
            }
        ),
        any::<bool>().prop_map(|on| Request::Bypass { on }),
        maybe().prop_map(|service| Request::Registry { service }),
        (text(), text()).prop_map(|(service, id)| Request::Instance { service, id }),
        (text(), text()).prop_map(|(service, id)| Request::Heartbeat { service, id }),
        (text(), text()).prop_map(|(service, id)| Request::Deregister { service, id }),
        (
            (text(), text(), address(), any::<u16>()),
            ".{0,9}",
            proptest::collection::btree_map(".{0,9}", ".{0,9}", 0..3),
            maybe()
        )
            .prop_map(|((service, id, address, weight), zone, metadata, ttl)| {
                Request::Register(Registration { service, id, address, weight, zone, metadata, ttl })
            }),
    ]
}

/// What the server makes of what the client writes.
fn received(surface: &Surface, written: &Written) -> Result<Request, HttpError> {
    let uri: hyper::Uri = written.path_and_query.parse().unwrap();
    match parse(surface, &written.method, uri.path(), uri.query())? {
        Call::Ask(request) => Ok(request),
        Call::Write(change) => change.read(&written.body),
        Call::Register { service, id } => registration::read(service, id, &written.body).map(Request::Register),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn the_server_understands_what_the_client_means(request in request()) {
        let written = write(&request).unwrap();
        prop_assert_eq!(received(&Surface::ReadWrite, &written), Ok(request));
    }

    #[test]
    fn a_read_only_listener_lets_no_change_through(request in request()) {
        let written = write(&request).unwrap();
        let result = received(&Surface::ReadOnly { socket: None }, &written);
        if request.is_write() {
            prop_assert_eq!(result.unwrap_err().status, StatusCode::FORBIDDEN);
        } else {
            prop_assert_eq!(result, Ok(request));
        }
    }

    #[test]
    fn no_path_or_query_is_a_panic(path in "(/[a-z0-9%.+/]{0,30})|(/v1/[a-z%]{0,20})|(/v1/registry/[a-z%/]{0,20})", query in "[a-z0-9%+&=]{0,30}") {
        for surface in
            [Surface::ReadWrite, Surface::ReadOnly { socket: None }, Surface::MetricsOnly, Surface::Registry(None)]
        {
            let _ = parse(&surface, &Method::GET, &path, Some(&query));
        }
    }
}

//! The answer to a question.

use super::table::{Entry, Found, Table, ZONE};
use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SOA, SRV},
    },
};
use std::{collections::BTreeSet, net::IpAddr};

/// For how many seconds an answer holds, and that there is none: services come and go.
const TTL: u32 = 5;

/// What is answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) records: Vec<Record>,
    /// Addresses of what the records name.
    pub(super) more: Vec<Record>,
    /// For how long it holds that there are no records.
    pub(super) soa: Option<Record>,
}

/// Who has the answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This is it.
    Ours(Answer),
    /// Others, and this where they say that there is no such name.
    OthersOr(Answer),
    /// Others.
    Others,
}

/// The answer to a question.
pub(super) fn answer(table: &Table, name: &Name, kind: RecordType) -> Word {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let (host, of) = host_of(text).map_or((text, Of::Host), |(host, of)| (host, of));
    let zone = text == ZONE || text.strip_suffix(ZONE).is_some_and(|rest| rest.ends_with('.'));
    let of_entry = |entry: &Entry| {
        let found = match (of, kind) {
            (Of::Host | Of::Tcp, RecordType::SRV) | (Of::Tcp, RecordType::ANY) => services(entry, name, host),
            (Of::Host, kind) => Answer { records: addresses(entry, name, kind), ..Answer::default() },
            // The name is there, and nothing is to be had by it.
            (Of::Tcp | Of::Udp, _) => Answer::default(),
        };
        if found.records.is_empty() { nothing(name, zone, ResponseCode::NoError) } else { found }
    };
    match table.find(host) {
        Found::Elsewhere => Word::Others,
        Found::Nothing => Word::Ours(nothing(name, zone, ResponseCode::NXDomain)),
        Found::Between => Word::Ours(nothing(name, zone, ResponseCode::NoError)),
        Found::Service(entry) => Word::Ours(of_entry(entry)),
        Found::Unless(entry) => Word::OthersOr(of_entry(entry)),
    }
}

/// What a question is about.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// A host.
    Host,
    /// What a host serves by TCP.
    Tcp,
    /// What it serves by UDP: nothing.
    Udp,
}

/// What `_SERVICE._tcp.NAME` is about: `NAME`.
fn host_of(name: &str) -> Option<(&str, Of)> {
    let below = |name: &'_ str| [("_tcp.", Of::Tcp), ("_udp.", Of::Udp)].into_iter().find(|(p, _)| name.starts_with(p));
    let rest = match below(name) {
        Some(_) => name,
        None => name.strip_prefix('_')?.split_once('.')?.1,
    };
    let (prefix, of) = below(rest)?;
    Some((&rest[prefix.len()..], of)).filter(|(host, _)| !host.is_empty())
}

fn addresses(entry: &Entry, name: &Name, kind: RecordType) -> Vec<Record> {
    let ips: BTreeSet<IpAddr> = entry.vips.iter().map(|vip| vip.ip()).collect();
    let record = |ip| match (ip, kind) {
        (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(RData::A(A(ip))),
        (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    };
    ips.into_iter().filter_map(record).map(|data| Record::from_rdata(name.clone(), TTL, data)).collect()
}

/// Each port of the service, at its host, whose addresses go along.
fn services(entry: &Entry, name: &Name, host: &str) -> Answer {
    let Ok(target) = Name::from_ascii(format!("{host}.")) else { return Answer::default() };
    let ports: BTreeSet<u16> = entry.vips.iter().map(|vip| vip.port()).collect();
    let record = |port| Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, 1, port, target.clone())));
    let records = ports.into_iter().map(record).collect();
    Answer { records, more: addresses(entry, &target, RecordType::ANY), ..Answer::default() }
}

/// There are no such records, which holds for a moment (RFC 2308).
fn nothing(name: &Name, zone: bool, code: ResponseCode) -> Answer {
    // Within the zone it is the zone's word, elsewhere that of the name alone.
    let mut owner = name.clone();
    if zone {
        owner = owner.trim_to(1);
    }
    let at = |label: &str| owner.prepend_label(label).unwrap_or_else(|_| owner.clone());
    let soa = SOA::new(at("ns"), at("hostmaster"), 1, 60, 60, 60, TTL);
    let soa = Record::from_rdata(owner.clone(), TTL, RData::SOA(soa));
    Answer { code, soa: Some(soa), ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::{
        super::table::tests::{table_of, with},
        *,
    };

    fn table() -> Table {
        let declared = [
            with("shop", &["240.1.0.1:80", "240.1.0.1:8080", "[fd00::1]:80"], &["www.example.com"]),
            with("cart.shop", &["240.1.0.2:80"], &[]),
            with("bare", &[], &[]),
        ];
        table_of(&declared, &[with("registered", &["240.1.0.7:80"], &[])])
    }

    fn word(name: &str, kind: RecordType) -> Word {
        answer(&table(), &Name::from_ascii(name).unwrap(), kind)
    }

    fn ask(name: &str, kind: RecordType) -> Option<Answer> {
        match word(name, kind) {
            Word::Ours(answer) => Some(answer),
            Word::OthersOr(_) | Word::Others => None,
        }
    }

    fn data(name: &str, kind: RecordType) -> Vec<String> {
        let answer = ask(name, kind).unwrap();
        assert!(answer.records.iter().all(|r| r.ttl == 5 && r.name == Name::from_ascii(name).unwrap()));
        assert_eq!(answer.code, ResponseCode::NoError);
        assert_eq!(answer.soa.is_none(), !answer.records.is_empty());
        answer.records.iter().map(|r| r.data.to_string()).collect()
    }

    #[test]
    fn names_have_the_addresses_of_the_vips_each_once() {
        for name in ["shop.mesh.", "shop.", "www.example.com.", "ShOp.MESH."] {
            assert_eq!(data(name, RecordType::A), ["240.1.0.1"], "{name}");
            assert_eq!(data(name, RecordType::AAAA), ["fd00::1"], "{name}");
            assert_eq!(data(name, RecordType::ANY), ["240.1.0.1", "fd00::1"], "{name}");
        }
        assert_eq!(data("cart.shop.mesh.", RecordType::AAAA), [""; 0], "no such address is not no such name");
        assert_eq!(data("cart.shop.mesh.", RecordType::MX), [""; 0]);
        assert_eq!(data("bare.mesh.", RecordType::A), [""; 0]);
    }

    #[test]
    fn services_of_a_name_have_its_ports() {
        for name in ["_http._tcp.shop.mesh.", "shop.mesh."] {
            assert_eq!(data(name, RecordType::SRV), ["0 1 80 shop.mesh.", "0 1 8080 shop.mesh."], "{name}");
        }
        assert_eq!(data("_x._tcp.www.example.com.", RecordType::SRV).len(), 2);
        assert_eq!(ask("_http._tcp.shop.mesh.", RecordType::SRV).unwrap().more.len(), 2);
        assert_eq!(data("_http._tcp.shop.mesh.", RecordType::A), [""; 0]);
        assert_eq!(data("_tcp.shop.mesh.", RecordType::A), [""; 0]);
        for name in ["_http._udp.shop.mesh.", "_udp.shop.mesh.", "_sip._udp.www.example.com."] {
            assert_eq!(data(name, RecordType::SRV), [""; 0], "{name}: the name is there");
        }
    }

    #[test]
    fn what_is_only_registered_is_answered_without_the_zone_where_others_know_nothing() {
        assert_eq!(data("registered.mesh.", RecordType::A), ["240.1.0.7"]);
        for (name, kind) in [("registered.", RecordType::A), ("_http._tcp.registered.", RecordType::SRV)] {
            let Word::OthersOr(answer) = word(name, kind) else { panic!("{name}") };
            assert_eq!(answer.records.len(), 1, "{name}");
        }
    }

    #[test]
    fn within_the_zone_a_name_that_nobody_has_does_not_exist() {
        for name in ["nobody.mesh.", "_http._tcp.nobody.mesh.", "_http._udp.nobody.mesh.", "x.shop.mesh."] {
            let answer = ask(name, RecordType::A).unwrap();
            assert_eq!((answer.code, answer.records.len()), (ResponseCode::NXDomain, 0), "{name}");
            let soa = answer.soa.unwrap();
            assert_eq!((soa.name.to_ascii().as_str(), soa.ttl), ("mesh.", 5));
        }
        assert_eq!(data("mesh.", RecordType::A), [""; 0]);
    }

    #[test]
    fn the_rest_is_for_others() {
        for name in ["example.com.", "nobody.", "bare.", ".", "_http._tcp.example.com."] {
            assert_eq!(ask(name, RecordType::A), None, "{name}");
        }
    }
}

//! Ports for a demo or bench, which another one that starts at the same moment does not take.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

/// How many ports are tried.
const TRIES: u16 = 500;

/// Ours until dropped.
pub(crate) struct Port {
    pub(crate) number: u16,
    _guard: TcpListener,
}

/// The first port from `first` on that is free on all these addresses.
///
/// Whoever will listen there is started later, and one of them twice: in between only the guard says that the port is
/// taken. It listens on an address that nobody else has a use for.
pub(crate) fn reserve(first: u16, addresses: &[IpAddr]) -> Result<Port, String> {
    let guard = |number: u16| TcpListener::bind((Ipv4Addr::new(127, 0, 1, 0), number)).ok();
    let free = |number: u16| addresses.iter().all(|address| TcpListener::bind((*address, number)).is_ok());
    let mut ports = (first..first.saturating_add(TRIES)).filter_map(|number| Some((number, guard(number)?)));
    let found = ports.find(|(number, _)| free(*number)).map(|(number, guard)| Port { number, _guard: guard });
    found.ok_or_else(|| format!("{TRIES} ports from {first} on are taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_and_nobody_else_gets_it() {
        let address = IpAddr::from([127, 0, 1, 9]);
        let one = reserve(21_000, &[address]).unwrap();
        let two = reserve(21_000, &[address]).unwrap();
        assert_ne!(one.number, two.number);
        let _backend = TcpListener::bind((address, one.number)).unwrap();
        drop(one);
        assert_ne!(reserve(21_000, &[address]).unwrap().number, two.number);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let address = IpAddr::from([127, 0, 1, 8]);
        let one = reserve(22_000, &[address]).unwrap().number;
        let _somebody = TcpListener::bind((address, one)).unwrap();
        assert!(reserve(one, &[address]).unwrap().number > one);
    }
}

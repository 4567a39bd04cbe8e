//! Where the daemon would listen, and who listens there already.

use super::{Report, host::usable};
use crate::{
    api::in_place_of,
    config::{Config, Mode},
};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::Path,
};

pub(super) fn listeners(report: &mut Report, config: &Config, daemon: Option<u32>) {
    let mut port = |check, address, required| port(report, check, address, daemon, required);
    port("admin.listen", bound(config.admin.listen.0), true);
    if let Some(address) = config.admin.metrics_listen.0 {
        port("admin.metrics_listen", bound(address), true);
    }
    if let Some(address) = config.discovery.registry.listen.0 {
        port("discovery.registry.listen", address, true);
    }
    // Without these the daemon does the rest.
    if let Some(address) = config.discovery.dns_listen.0 {
        port("discovery.dns_listen", address, false);
    }
    if let Some(address) = config.proxy.http.0 {
        port("proxy.http", address, false);
    }
    if config.dataplane.mode != Mode::Userspace {
        // In this network namespace; what listens in those of others is seen when they connect.
        port("proxy.port", (Ipv4Addr::LOCALHOST, config.proxy.port).into(), false);
    }
    socket(report, &config.admin.socket, daemon);
}

/// Where the daemon listens for this address, as [`in_place_of`] has it.
fn bound(address: SocketAddr) -> SocketAddr {
    TcpListener::bind(address).err().and_then(|e| in_place_of(address, &e)).unwrap_or(address)
}

fn port(report: &mut Report, check: &str, address: SocketAddr, daemon: Option<u32>, required: bool) {
    let Err(e) = TcpListener::bind(address) else {
        return report.add(check, true, required, format!("{address} is free"), None);
    };
    let owner = owner(address);
    if owner.is_some() && owner == daemon {
        return report.add(check, true, required, format!("{address} is the running daemon's"), None);
    }
    let detail = match owner {
        Some(pid) => format!("{address} is taken by {} (pid {pid})", command(pid)),
        None => format!("{address}: {e}"),
    };
    let remedy = match e.kind() {
        io::ErrorKind::AddrInUse => format!("end what listens there, or set {check} to another port"),
        io::ErrorKind::PermissionDenied => {
            format!("a port below 1024 needs CAP_NET_BIND_SERVICE, or set another {check}")
        }
        _ => format!("set {check} to an address of this host"),
    };
    report.add(check, false, required, detail, Some(remedy));
}

fn socket(report: &mut Report, path: &Path, daemon: Option<u32>) {
    let shown = path.display();
    let (ok, detail) = match UnixStream::connect(path) {
        Ok(_) if daemon.is_some() => (true, format!("{shown} is answered, as it is while a daemon runs")),
        Ok(_) => (false, format!("{shown} is answered by somebody else")),
        Err(_) => match path.parent().map_or(Ok(true), usable) {
            Ok(_) => (true, format!("{shown} is free")),
            Err(e) => (false, format!("{shown}: {e}")),
        },
    };
    let remedy = (!ok).then(|| "set admin.socket to another path".to_owned());
    report.add("admin.socket", ok, true, detail, remedy);
}

/// The process that listens at an address, if the system tells.
fn owner(address: SocketAddr) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        listening(&text, address)
    })?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let fds = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|to| to.to_str() == Some(&socket));
        fds.filter_map(Result::ok).any(holds).then_some(pid)
    })
}

/// The inode of the socket that listens at `address`, or at its port on every address.
///
/// `  0: 0100007F:26AD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 12345 ...`
fn listening(table: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let ip = ip_of(ip)?;
        let same = u16::from_str_radix(port, 16) == Ok(address.port())
            && (ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified());
        (*state == LISTEN && same).then(|| inode.parse().ok())?
    })
}

/// An address as `/proc/net/tcp` has it: words of the machine's byte order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..hex.len()).step_by(8) {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Some(v4.into()),
        Err(_) => <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_canonical()),
    }
}

fn command(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim().is_empty() { "a process".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_found() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(owner(address), Some(std::process::id()), "{address}");
            drop(listener);
            assert_eq!(owner(address), None, "{address}");
        }
    }
}

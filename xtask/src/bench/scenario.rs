//! What is asked of every peer, and by which program.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Scenario {
    /// HTTP/1.1, 64 connections, 1 KiB
    C64,
    /// HTTP/1.1, one connection, 1 KiB: latency
    C1,
    /// HTTP/1.1, 1,000 connections, 1 KiB
    C1000,
    /// HTTP/1.1, 64 at a time, a new connection for each request
    Close,
    /// HTTP/1.1, 64 connections, a request with 12 headers more
    Headers,
    /// HTTP/2, 8 connections with 32 streams each, 1 KiB
    H2,
    /// HTTP/2, the same with POST of 128 bytes, answered by 16 bytes and a trailer
    Grpc,
    /// HTTP/1.1, 8 connections, bodies of 10 MiB
    Big,
}

/// What a browser sends with a request to a service behind a login, and what tracing adds.
const HEADERS: [&str; 12] = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://shop.example.org/catalogue/garden?page=3",
    "Cookie: session=5f2b7c0d9e4a41c8b6f3; theme=dark; consent=essential",
    "Authorization: Bearer c2hvcC1leGFtcGxlLXRva2VuLW9mLWEtdXN1YWwtbGVuZ3Ro",
    "Cache-Control: no-cache",
    "Sec-Fetch-Mode: navigate",
    "X-Request-Id: 3d1f6a52-8f0c-4c57-9a3e-6f2f0c1b7a90",
    "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "X-Forwarded-Proto: https",
];

/// Names under which the proxy knows the services; the other peers do not ask.
pub(super) const WEB: &str = "web";
pub(super) const STREAM: &str = "stream";

/// Where a peer listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doors {
    pub(super) http1: SocketAddr,
    pub(super) http2: SocketAddr,
}

impl Scenario {
    /// In the order in which they are measured.
    pub(super) const ALL: [Scenario; 8] = [
        Scenario::C64,
        Scenario::C1,
        Scenario::C1000,
        Scenario::Close,
        Scenario::Headers,
        Scenario::H2,
        Scenario::Grpc,
        Scenario::Big,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Scenario::C64 => "c64",
            Scenario::C1 => "c1",
            Scenario::C1000 => "c1000",
            Scenario::Close => "close",
            Scenario::Headers => "headers",
            Scenario::H2 => "h2",
            Scenario::Grpc => "grpc",
            Scenario::Big => "big",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Scenario::C64 => "HTTP/1.1, 64 connections, 1 KiB",
            Scenario::C1 => "HTTP/1.1, one connection, 1 KiB",
            Scenario::C1000 => "HTTP/1.1, 1,000 connections, 1 KiB",
            Scenario::Close => "HTTP/1.1, new connection for each request, 64 at a time",
            Scenario::Headers => "HTTP/1.1, 64 connections, 12 more headers",
            Scenario::H2 => "HTTP/2, 8 connections × 32 streams, 1 KiB",
            Scenario::Grpc => "HTTP/2, POST 128 B → 16 B and a trailer, 8 × 32 streams",
            Scenario::Big => "HTTP/1.1, 8 connections, 10 MiB bodies",
        }
    }

    /// Bodies are counted by size, not by number.
    pub(super) fn by_size(self) -> bool {
        self == Scenario::Big
    }

    pub(super) fn is_http2(self) -> bool {
        matches!(self, Scenario::H2 | Scenario::Grpc)
    }

    /// The program that makes this load for so many whole seconds. `message` is the body of a POST, `log` where h2load
    /// writes the time of each request.
    pub(super) fn command(self, doors: Doors, seconds: u32, message: &Path, log: &Path) -> Command {
        if self.is_http2() { self.h2load(doors.http2, seconds, message, log) } else { self.wrk(doors.http1, seconds) }
    }

    fn wrk(self, door: SocketAddr, seconds: u32) -> Command {
        let connections = match self {
            Scenario::C1 => 1,
            Scenario::C1000 => 1000,
            Scenario::Big => 8,
            _ => 64,
        };
        let mut command = Command::new("wrk");
        command.args(["--latency", "--timeout", "5s", "-t1"]);
        command.args([format!("-c{connections}"), format!("-d{seconds}s")]);
        command.arg("-H").arg(format!("Host: {WEB}"));
        let extra: &[&str] = match self {
            Scenario::Close => &["Connection: close"],
            Scenario::Headers => &HEADERS,
            _ => &[],
        };
        for header in extra {
            command.args(["-H", header]);
        }
        command.arg(format!("http://{door}{}", if self == Scenario::Big { "/10m" } else { "/" }));
        command
    }

    fn h2load(self, door: SocketAddr, seconds: u32, message: &Path, log: &Path) -> Command {
        let mut command = Command::new("h2load");
        command.args(["-t1", "-c8", "-m32", &format!("--duration={seconds}")]);
        command.arg(format!("--log-file={}", log.display()));
        command.arg("-H").arg(format!(":authority: {STREAM}"));
        if self == Scenario::Grpc {
            command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(message);
        }
        command.arg(format!("http://{door}{}", if self == Scenario::Grpc { "/grpc" } else { "/" }));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scenario_has_the_name_by_which_it_is_chosen() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(scenario));
        }
        assert_eq!(Scenario::ALL.len(), Scenario::value_variants().len());
    }

    #[test]
    fn a_realistic_request_carries_twelve_headers_besides_its_host() {
        let doors = Doors { http1: "127.0.0.1:1".parse().unwrap(), http2: "127.0.0.1:2".parse().unwrap() };
        let command = Scenario::Headers.command(doors, 1, Path::new("/m"), Path::new("/l"));
        assert_eq!(command.get_args().filter(|argument| *argument == "-H").count(), 13);
        assert_eq!(command.get_args().last().unwrap(), "http://127.0.0.1:1/");
    }
}

//! The programs of the demo that are not mesh: backends that answer with their name, clients that dial a VIP.
//!
//! They know nothing of mesh, and are processes of their own: a backend can really be killed, and a client is captured
//! because of its cgroup. They end when their standard input does, so none outlives the demo, however it ends.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use super::tally::{Outcome, Report};

/// How long a client waits for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speech {
    /// One HTTP/1.1 request.
    Http,
    /// One line, answered by one line.
    Line,
}

impl std::fmt::Display for Speech {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Speech::Http => "HTTP",
            Speech::Line => "a protocol of its own",
        })
    }
}

/// Serves for ever, one thread a connection.
pub(crate) fn backend(name: &str, speech: Speech, listen: SocketAddr) -> Result<(), String> {
    let listener = TcpListener::bind(listen).map_err(|error| format!("backend {name} at {listen}: {error}"))?;
    end_with_input();
    println!("listening");
    for stream in listener.incoming().map_while(Result::ok) {
        let name = name.to_owned();
        // A client that goes away early is no trouble of ours.
        std::thread::spawn(move || drop(answer(stream, &name, speech)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str, speech: Speech) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match speech {
        Speech::Line => stream.write_all(format!("{name}\n").as_bytes()),
        Speech::Http => {
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line)?;
            }
            let length = name.len() + 1;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.write_all(format!("{head}{name}\n").as_bytes())
        }
    }
}

/// Joins the cgroup, then dials `vip` again and again, a new connection each time, and reports each on standard output.
pub(crate) fn client(speech: Speech, vip: SocketAddr, cgroup: &Path, pause: Duration) -> Result<(), String> {
    let procs = cgroup.join("cgroup.procs");
    std::fs::write(&procs, "0").map_err(|error| format!("{}: {error}", procs.display()))?;
    end_with_input();
    let mut out = std::io::stdout().lock();
    let mut peer = None;
    loop {
        let outcome = match ask(speech, vip) {
            Ok((name, seen)) => {
                if peer.replace(seen) != Some(seen) {
                    writeln!(out, "{}", Report::Peer(seen.to_string())).map_err(|error| error.to_string())?;
                }
                Outcome::Answer(name)
            }
            Err(error) => Outcome::Failure(kind(&error).into()),
        };
        writeln!(out, "{}", Report::Outcome(outcome)).map_err(|error| error.to_string())?;
        std::thread::sleep(pause);
    }
}

/// One connection: the name that came back, and the address the socket says it is connected to.
fn ask(speech: Speech, vip: SocketAddr) -> std::io::Result<(String, SocketAddr)> {
    let mut stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    match speech {
        Speech::Line => stream.write_all(b"who is there?\n")?,
        Speech::Http => stream.write_all(format!("GET / HTTP/1.1\r\nhost: {vip}\r\n\r\n").as_bytes())?,
    }
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    // The name is the last line of either answer.
    let name = text.lines().last().filter(|name| !name.is_empty()).ok_or(ErrorKind::UnexpectedEof)?;
    Ok((name.to_owned(), peer))
}

fn kind(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => "reset",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
        _ => "other",
    }
}

/// The demo holds the other end: when it is gone, for whatever reason, so are we.
fn end_with_input() {
    std::thread::spawn(|| {
        let mut nothing = [0; 16];
        while std::io::stdin().read(&mut nothing).is_ok_and(|count| count > 0) {}
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_say_their_name_in_both_manners() {
        for speech in [Speech::Http, Speech::Line] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, "red", speech).unwrap());
            assert_eq!(ask(speech, address).unwrap(), ("red".into(), address));
            server.join().unwrap();
        }
    }

    #[test]
    fn a_refused_connect_is_called_refused() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(kind(&ask(Speech::Line, address).unwrap_err()), "refused");
    }
}

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
    /// HTTP/1.1.
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
    if speech == Speech::Line {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if speech == Speech::Line {
            return stream.write_all(format!("{name}\n").as_bytes());
        }
        let last = head(&mut reader)?.contains("\nconnection: close\n");
        let (length, close) = (name.len() + 1, if last { "connection: close\r\n" } else { "" });
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{close}\r\n");
        stream.write_all(format!("{head}{name}\n").as_bytes())?;
        if last {
            return Ok(());
        }
    }
}

/// The rest of a head, up to the empty line: in lower case, each line between two `\n`.
fn head(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut head = String::from("\n");
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            return Ok(head);
        }
        head.push_str(&line.trim_end().to_ascii_lowercase());
        head.push('\n');
    }
}

/// Joins the cgroup, then asks at `vip` again and again, and reports each time on standard output. So many questions go
/// over a connection; 0: as many as it lives for.
pub(crate) fn client(
    speech: Speech,
    vip: SocketAddr,
    cgroup: &Path,
    pause: Duration,
    questions: u64,
) -> Result<(), String> {
    join(cgroup)?;
    end_with_input();
    let mut out = std::io::stdout().lock();
    let mut say = |report: Report| writeln!(out, "{report}").map_err(|error| error.to_string());
    let (mut session, mut peer) = (None, None);
    loop {
        let opened = match session.take() {
            Some(session) => Ok(session),
            None => Session::open(vip),
        };
        let asked = opened.and_then(|mut open| {
            open.asked += 1;
            let last = open.asked == questions;
            let answer = open.ask(speech, None, last)?;
            Ok((open, answer, last))
        });
        match asked {
            Ok((open, answer, last)) => {
                if open.asked == 1 {
                    say(Report::Connection)?;
                }
                if peer.replace(open.peer) != Some(open.peer) {
                    say(Report::Peer(open.peer.to_string()))?;
                }
                session = (!last).then_some(open);
                say(answer.report())?;
            }
            Err(error) => say(Report::Outcome(Outcome::Failure(kind(&error))))?,
        }
        std::thread::sleep(pause);
    }
}

/// Joins the cgroup, asks once over HTTP, and reports it on standard output.
pub(crate) fn request(vip: SocketAddr, cgroup: &Path, header: Option<&str>) -> Result<(), String> {
    join(cgroup)?;
    let answer = Session::open(vip).and_then(|mut session| session.ask(Speech::Http, header, true));
    let report = answer.map_or_else(|error| Report::Outcome(Outcome::Failure(kind(&error))), |answer| answer.report());
    println!("{report}");
    Ok(())
}

fn join(cgroup: &Path) -> Result<(), String> {
    let procs = cgroup.join("cgroup.procs");
    std::fs::write(&procs, "0").map_err(|error| format!("{}: {error}", procs.display()))
}

/// A connection of a client.
struct Session {
    stream: BufReader<TcpStream>,
    vip: SocketAddr,
    /// What the socket says it is connected to.
    peer: SocketAddr,
    asked: u64,
}

/// What came back.
struct Answer {
    name: String,
    /// Whether it says that it came through the daemon.
    through: bool,
}

impl Answer {
    fn report(self) -> Report {
        if self.through { Report::Through(self.name) } else { Report::Outcome(Outcome::Answer(self.name)) }
    }
}

impl Session {
    fn open(vip: SocketAddr) -> std::io::Result<Session> {
        let stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A question is one small write, which waits for nothing.
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        Ok(Session { stream: BufReader::new(stream), vip, peer, asked: 0 })
    }

    /// Asks who is there. `last`: nothing more is asked by this connection.
    fn ask(&mut self, speech: Speech, header: Option<&str>, last: bool) -> std::io::Result<Answer> {
        let mut through = false;
        let question = match speech {
            Speech::Line => "who is there?\n".to_owned(),
            Speech::Http => {
                let header = header.map_or_else(String::new, |header| format!("{header}\r\n"));
                let close = if last { "connection: close\r\n" } else { "" };
                format!("GET / HTTP/1.1\r\nhost: {}\r\n{header}{close}\r\n", self.vip)
            }
        };
        self.stream.get_mut().write_all(question.as_bytes())?;
        let mut name = String::new();
        if speech == Speech::Http {
            let head = head(&mut self.stream)?;
            let status = head.split_whitespace().nth(1).unwrap_or("no answer");
            if status != "200" {
                return Err(std::io::Error::other(status));
            }
            through = head.lines().any(|line| line.starts_with("via: ") && line.ends_with(" mesh"));
        }
        // The name is the one line that follows.
        self.stream.read_line(&mut name)?;
        let name = name.trim_end().to_owned();
        if name.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(Answer { name, through }) }
    }
}

fn kind(error: &std::io::Error) -> String {
    let word = match error.kind() {
        ErrorKind::ConnectionRefused => "refused",
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => "reset",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout",
        // A status that is not 200.
        _ => return error.to_string().split_whitespace().next().unwrap_or("other").to_owned(),
    };
    word.to_owned()
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
    fn backends_say_their_name_in_both_manners_and_http_ones_as_often_as_asked() {
        for speech in [Speech::Http, Speech::Line] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || answer(listener.accept().unwrap().0, "red", speech).unwrap());
            let mut session = Session::open(address).unwrap();
            let questions = if speech == Speech::Http { 3 } else { 1 };
            for question in 1..=questions {
                let answer = session.ask(speech, Some("x-canary: 1"), question == questions).unwrap();
                assert_eq!((answer.name.as_str(), answer.through), ("red", false));
            }
            server.join().unwrap();
        }
    }

    #[test]
    fn an_answer_says_whether_it_came_through_the_daemon_and_what_was_refused() {
        let ask = |answer: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                head(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let asked = Session::open(address).unwrap().ask(Speech::Http, None, true);
            server.join().unwrap();
            asked.map(|answer| (answer.name, answer.through)).map_err(|error| kind(&error))
        };
        let through = ask("HTTP/1.1 200 OK\r\nVia: 1.1 mesh\r\ncontent-length: 4\r\n\r\nred\n");
        assert_eq!(through, Ok(("red".into(), true)));
        assert_eq!(ask("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), Err("503".into()));
        assert_eq!(ask(""), Err("reset".into()));
    }

    #[test]
    fn a_refused_connect_is_called_refused() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(Session::open(address).map_err(|error| kind(&error)).err(), Some("refused".into()));
    }
}

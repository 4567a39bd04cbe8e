//! Servers that are processes of their own, to be ended as such.

use crate::Wire;
use std::{
    io::{self, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// Serves at `address` until the process ends; says `listening` first. `kind`: `identity`, which says `name` and closes;
/// `echo`; or `http`, whose answers are `NAME CLIENT VIA`: the client's address as the server sees it, and whether the
/// proxy came between.
///
/// # Errors
/// The system's, where it cannot listen.
///
/// # Panics
/// Where there is no such kind.
pub fn run(kind: &str, name: &str, address: &str) -> io::Result<()> {
    let serve: fn(TcpStream, &str) -> io::Result<()> = match kind {
        "identity" => |mut stream, name| stream.write_all(format!("I am {name}\n").as_bytes()),
        "echo" => |stream, _| io::copy(&mut &stream, &mut &stream).map(drop),
        "http" => http,
        _ => panic!("no kind of server: {kind}"),
    };
    let listener = TcpListener::bind(address)?;
    println!("listening");
    let name: Arc<str> = name.into();
    loop {
        let (stream, _) = listener.accept()?;
        let name = Arc::clone(&name);
        // The client may go whenever it likes.
        thread::spawn(move || serve(stream, &name));
    }
}

fn http(stream: TcpStream, name: &str) -> io::Result<()> {
    // As a person would write it, also where the listener is of both families.
    let client = stream.peer_addr()?.ip().to_canonical();
    let mut wire = Wire::over(stream);
    while let Ok(request) = wire.request() {
        let body = format!("{name} {client} {}", request.header("via").unwrap_or("direct"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        wire.stream().write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

//! A cable between two that can be cut.

use crate::ports::Port;
use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Passes connections on to an address, as long as it is not cut. Its threads end with the test's process.
#[derive(Debug)]
pub struct Relay {
    port: Port,
    cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// To this address.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn new(to: &str) -> Self {
        let (port, to) = (Port::new(), to.to_owned());
        let listener = TcpListener::bind(port.address()).expect("a free port can be bound");
        let relay = Self { port, cut: Arc::default(), streams: Arc::default() };
        let (cut, streams) = (relay.cut.clone(), relay.streams.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Dropped, and so closed at once.
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&to) else { continue };
                for (from, into) in [(&client, &server), (&server, &client)] {
                    let (Ok(mut from), Ok(mut into)) = (from.try_clone(), into.try_clone()) else { continue };
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut into);
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
                streams.lock().expect("nobody panics with the list in hand").extend([client, server]);
            }
        });
        relay
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Ends all connections and lets none through, or lets them through again.
    ///
    /// # Panics
    /// Never.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        if cut {
            for stream in self.streams.lock().expect("nobody panics with the list in hand").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

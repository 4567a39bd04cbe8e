//! The server's end of a connection, in plain or by TLS.

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// How a server shows who it is; `None`: it speaks plainly.
pub type Identity = Option<Arc<ServerConfig>>;

/// One that is shown by a certificate and its key.
///
/// # Panics
/// Where the files are none.
#[must_use]
pub fn identity(certificate: &Path, key: &Path) -> Identity {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).expect("a certificate").collect();
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of the library's own choice")
        .with_no_client_auth()
        .with_single_cert(chain.expect("certificates"), key)
        .expect("a key that fits");
    Some(Arc::new(config))
}

/// A connection.
#[derive(Debug)]
pub enum Wire {
    /// In plain.
    Plain(TcpStream),
    /// By TLS.
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    /// A connection that was accepted. A read lasts no longer than `within`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stream: TcpStream, identity: &Identity, within: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(within))?;
        let Some(identity) = identity else { return Ok(Self::Plain(stream)) };
        let tls = ServerConnection::new(Arc::clone(identity)).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, stream))))
    }

    /// Ends it as a crash does.
    ///
    /// # Errors
    /// The system's.
    pub fn cut(&self) -> io::Result<()> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        };
        stream.shutdown(Shutdown::Both)
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(tls) => tls.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

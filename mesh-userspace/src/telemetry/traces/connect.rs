//! Connections to a collector.

use super::{Collector, collector::Protocol as Spoken, collector::Trust};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects, with `mark` on the socket (0: none), so that the hooks let it pass: what tells of connections is none of them.
pub(super) async fn connect(collector: &Collector, mark: u32) -> io::Result<Box<dyn Stream>> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in lookup_host((collector.host.as_str(), collector.port)).await? {
        match connect_to(address, mark).await {
            Ok(stream) => return secure(collector, stream).await,
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

async fn connect_to(address: SocketAddr, mark: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// With TLS, if the collector speaks it.
async fn secure(collector: &Collector, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    let Some(trust) = &collector.trust else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(collector.host.clone()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    // Certificates change: they are read again for each connection, of which there are few.
    let mut config = config.with_root_certificates(roots(trust)?).with_no_client_auth();
    config.alpn_protocols = match collector.protocol {
        Spoken::Http(_) => vec![b"http/1.1".to_vec()],
        Spoken::Grpc => vec![b"h2".to_vec()],
    };
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Who may have signed its certificate. Nobody is nobody it could be: that is said, and not found out.
fn roots(trust: &Trust) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
                return Err(io::Error::other(format!("this system has no certificates that it trusts{why}")));
            }
        }
        Trust::File(file) => {
            let wrong = |why: String| io::Error::other(format!("{}: {why}", file.display()));
            for certificate in certificates(file).map_err(|e| wrong(e.to_string()))? {
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("no certificate in it (PEM)".to_owned()));
            }
        }
    }
    Ok(roots)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(file)?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_nobody_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let trust = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            roots(&Trust::File(file)).unwrap_err().to_string()
        };
        assert!(trust("empty", "").ends_with("empty: no certificate in it (PEM)"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(trust("broken", broken).contains("broken: "), "{}", trust("broken", broken));
        let missing = roots(&Trust::File(directory.path().join("missing"))).unwrap_err().to_string();
        assert!(missing.contains("missing: No such file"), "{missing}");
    }
}

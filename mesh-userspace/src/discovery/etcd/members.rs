//! Which member is asked, as whom, and when again.

use super::client::{Client, Failure, causes};
use crate::discovery::{Direct, Etcd};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::{fs, time::timeout};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How long it may take to get a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a member is asked whether it is there, and how soon it must answer: a watch that has nothing to say looks
/// like a member that hangs. etcd does not let itself be asked more often than each 5 s.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);

/// The pause after all members failed once, and the longest.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// The members of a cluster.
#[derive(Debug)]
pub(super) struct Members {
    settings: Etcd,
    direct: Direct,
    /// Who is asked next.
    next: usize,
    /// How many in a row failed.
    failures: usize,
    /// What each of those last said.
    why: BTreeMap<usize, String>,
}

impl Members {
    pub(super) const fn new(settings: Etcd, direct: Direct) -> Self {
        Self { settings, direct, next: 0, failures: 0, why: BTreeMap::new() }
    }

    /// A connection to the member that is next. All files are read again: certificates and passwords change.
    pub(super) async fn connect(&self) -> Result<Client, Failure> {
        let Some(url) = self.settings.endpoints.get(self.next) else {
            return Err(Failure::other("no members are known"));
        };
        let channel = async {
            let endpoint = self.endpoint(url).await?;
            let connected = endpoint.connect_with_connector(self.direct.connector()).await;
            connected.map_err(|e| Failure::Other(causes(&e)))
        };
        let channel = timeout(PATIENCE, channel).await;
        let channel = channel.unwrap_or_else(|_| Err(Failure::Other(format!("no connection within {PATIENCE:?}"))))?;
        let mut client = Client::new(channel);
        if let Some(file) = &self.settings.password_file {
            let password = String::from_utf8(read(file).await?);
            let password = password.map_err(|_| Failure::Other(format!("{}: not text", file.display())))?;
            client.authenticate(&self.settings.username, password.trim_end_matches(['\r', '\n']).to_owned()).await?;
        }
        Ok(client)
    }

    async fn endpoint(&self, url: &str) -> Result<Endpoint, Failure> {
        let broken = |e: tonic::transport::Error| Failure::Other(causes(&e));
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(broken)?;
        let endpoint = endpoint.user_agent(concat!("mesh/", env!("CARGO_PKG_VERSION"))).map_err(broken)?;
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PONG).keep_alive_while_idle(true);
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint);
        }
        let host = endpoint.uri().host().unwrap_or_default();
        let mut tls = ClientTlsConfig::new().domain_name(host.trim_start_matches('[').trim_end_matches(']'));
        tls = match &self.settings.ca_file {
            Some(file) => tls.ca_certificate(Certificate::from_pem(certificates(file).await?)),
            None => tls.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.settings.cert_file, &self.settings.key_file) {
            tls = tls.identity(Identity::from_pem(certificates(certificate).await?, read(key).await?));
        }
        endpoint.tls_config(tls).map_err(|e| Failure::Other(format!("TLS: {}", causes(&e))))
    }

    /// A member did what was asked.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
        self.why.clear();
    }

    /// The member that is next did not, so another one is. Where all have failed: what each said.
    pub(super) fn failed(&mut self, why: &Failure) -> Option<String> {
        let members = self.settings.endpoints.len().max(1);
        self.failures += 1;
        self.why.insert(self.next, why.to_string());
        self.next = (self.next + 1) % members;
        self.failures.is_multiple_of(members).then(|| {
            let said = |(member, why): (&usize, &String)| match self.settings.endpoints.get(*member) {
                Some(url) => format!("{url}: {why}"),
                None => why.clone(),
            };
            self.why.iter().map(said).collect::<Vec<_>>().join("; ")
        })
    }

    /// How long to wait before the next member is asked. `dice`: 0 to 1.
    pub(super) fn pause(&self, dice: f64) -> Duration {
        let members = self.settings.endpoints.len().max(1);
        if self.failures.is_multiple_of(members) { pause(self.failures / members, dice) } else { Duration::ZERO }
    }
}

/// The pause after all members failed so many times: twice as long each time, and up to half of it left off, so that not
/// everyone comes back at once.
fn pause(rounds: usize, dice: f64) -> Duration {
    let Some(doublings) = rounds.checked_sub(1) else { return Duration::ZERO };
    let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
    (FIRST * 2_u32.pow(doublings)).min(LONGEST).mul_f64(1.0 - dice.clamp(0.0, 1.0) / 2.0)
}

async fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).await.map_err(|e| Failure::Other(format!("{}: {e}", file.display())))
}

/// A file with certificates in it: one without any would be taken, and nothing be trusted.
async fn certificates(file: &Path) -> Result<Vec<u8>, Failure> {
    let text = read(file).await?;
    if String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
        return Ok(text);
    }
    Err(Failure::Other(format!("{}: no certificate in it (PEM)", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(endpoints: &[&str]) -> Members {
        let settings = Etcd {
            endpoints: endpoints.iter().map(|url| (*url).to_owned()).collect(),
            prefix: "/p".to_owned(),
            username: String::new(),
            password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        };
        Members::new(settings, Direct::default())
    }

    #[test]
    fn one_member_after_the_other_is_asked_and_a_pause_made_when_all_failed() {
        let mut members = members(&["http://a", "http://b"]);
        assert_eq!(members.failed(&Failure::other("x")), None);
        assert_eq!((members.next, members.pause(0.0)), (1, Duration::ZERO));
        assert_eq!(members.failed(&Failure::other("y")).unwrap(), "http://a: x; http://b: y");
        assert_eq!((members.next, members.pause(0.0)), (0, FIRST));
        assert_eq!(members.failed(&Failure::other("z")), None);
        assert_eq!(members.failed(&Failure::other("y")).unwrap(), "http://a: z; http://b: y");
        assert_eq!(members.pause(0.0), 2 * FIRST);
        members.worked();
        assert_eq!(members.pause(0.0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn pauses_have_bounds(rounds in 1usize.., dice in 0.0f64..=1.0) {
            let pause = pause(rounds, dice);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST);
        }
    }
}

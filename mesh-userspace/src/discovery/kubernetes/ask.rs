//! One request to the API server, and what is wrong with its answer.

use super::objects::Kept;
use crate::discovery::Direct;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{InferConfigError, KubeConfigOptions},
};
use serde::Deserialize;
use std::{error::Error, fmt::Write as _, time::Duration};
use tokio::time::timeout;
use tower::{BoxError, ServiceExt as _, util::option_layer};

/// How long the API server may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to begin to answer: it queues what it is asked for a minute at most.
const ANSWER: Duration = Duration::from_secs(70);

/// How long an answer may stop within.
const STALL: Duration = Duration::from_secs(30);

/// The largest answer that is read: a list of a large cluster comes whole out of the server's cache.
const LARGEST: usize = 1 << 30;

/// The longest that a `Retry-After` is heeded.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Why something was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// For the operator: what, and what to do.
    pub(super) why: String,
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    /// How long the server wants to be left alone.
    pub(super) wait: Duration,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), status: None, wait: Duration::ZERO }
    }

    /// Whether the server has forgotten what it is asked to go on from.
    pub(super) fn is_gone(&self) -> bool {
        // Or it has been set back, as from a backup: what it knows is older. It says so in words, and as 504 (`Timeout`,
        // `ResourceVersionTooLarge`).
        let is_set_back = || self.why.to_ascii_lowercase().contains("too large resource version");
        match self.status {
            Some(410) => true,
            Some(504) => is_set_back(),
            _ => false,
        }
    }

    /// Whether the server does not know who asks: a token or certificate may be another one by now.
    pub(super) fn is_unknown(&self) -> bool {
        self.status == Some(StatusCode::UNAUTHORIZED.as_u16())
    }
}

/// The API server.
#[derive(Clone)]
pub(super) struct Server {
    client: Client,
    url: String,
}

impl Server {
    /// The one that the environment says: `$KUBECONFIG` or `~/.kube/config`, else that of the cluster in which this runs.
    ///
    /// # Errors
    /// There is none, or what is said of it is wrong.
    pub(super) async fn infer(direct: Direct) -> Result<Self, Failure> {
        let named = std::env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty());
        let inferred = match named {
            // What is named and wrong is not to be passed over.
            true => Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(|e| chain(&e)),
            false => Config::infer().await.map_err(|e: InferConfigError| chain(&e)),
        };
        let config = inferred.map_err(|why| {
            Failure::new(format!(
                "no API server is known: {why}; set KUBECONFIG, or run in a pod with a service account"
            ))
        })?;
        let url = config.cluster_url.to_string();
        if config.proxy_url.is_some() {
            let why = "a proxy (proxy-url of the kubeconfig, or $HTTPS_PROXY) is not supported: leave it out";
            return Err(Failure::new(format!("{url}: {why}")));
        }
        let client = client(&config, direct).map_err(|e| Failure::new(format!("{url}: {}", chain(&e))))?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned() })
    }

    /// An answer's body, if it was a good one. `verb`: what is asked for, as roles have it.
    pub(super) async fn get<T: Kept>(&self, verb: &str, path: &str) -> Result<Answer, Failure> {
        let what = if verb == "watch" { "" } else { "List" };
        let accept = match T::METADATA_ONLY {
            true => format!("application/json;as=PartialObjectMetadata{what};g=meta.k8s.io;v=v1, application/json"),
            false => "application/json".to_owned(),
        };
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty());
        let request = request.map_err(|e| Failure::new(format!("{path}: {e}")))?;
        let answer = match timeout(ANSWER, self.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(Failure::new(format!("{}: {}", self.url, chain(&e)))),
            Err(_) => return Err(Failure::new(format!("{}: no answer within {} s", self.url, ANSWER.as_secs()))),
        };
        let status = answer.status();
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let body = Answer { body: answer.into_body(), buffer: Vec::new(), seen: 0 };
        if status.is_success() {
            return Ok(body);
        }
        let text = body.whole(1 << 20).await.unwrap_or_default();
        let said = serde_json::from_slice::<Status>(&text).unwrap_or_default().message;
        Err(Failure {
            why: refused(status, verb, T::PLURAL, T::GROUP, &said),
            status: Some(status.as_u16()),
            wait: Duration::from_secs(wait.unwrap_or(0)).min(LONGEST_WAIT),
        })
    }
}

/// Asks as a configuration says, over connections of our own: as the library's own client, but for its retries.
fn client(config: &Config, direct: Direct) -> kube::Result<Client> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(direct.connector())?);
    connector.set_connect_timeout(Some(CONNECT));
    let sender = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector).map_err(BoxError::from);
    let asking = ClientBuilder::new(sender, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer());
    Ok(asking.build())
}

/// What the API server says where it refuses.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) code: u16,
}

fn refused(status: StatusCode, verb: &str, plural: &str, group: &str, said: &str) -> String {
    let mut why = match status {
        StatusCode::UNAUTHORIZED => format!(
            "the API server does not know who asks it to {verb} {plural} (401): renew the token or certificate of the \
             kubeconfig or of the service account"
        ),
        StatusCode::FORBIDDEN => {
            let group = group.strip_prefix("/apis/").and_then(|g| g.split('/').next()).unwrap_or_default();
            format!(
                "not allowed to {verb} {plural} (403): give the daemon's role the verb {verb} on {plural} of the API \
                 group {group:?}, as deploy/kubernetes/base/rbac.yaml does"
            )
        }
        StatusCode::TOO_MANY_REQUESTS => format!("the API server has too much to do to {verb} {plural} (429)"),
        _ => format!("the API server refuses to {verb} {plural} ({})", status.as_u16()),
    };
    if !said.is_empty() {
        let _ = write!(why, ": {said}");
    }
    why
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    buffer: Vec<u8>,
    /// So much of the buffer has no end of a line.
    seen: usize,
}

impl Answer {
    /// All of it.
    pub(super) async fn whole(mut self, most: usize) -> Result<Vec<u8>, Failure> {
        while self.more(STALL).await? {
            if self.buffer.len() > most.min(LARGEST) {
                return Err(Failure::new(format!("an answer of the API server is larger than {most} bytes")));
            }
        }
        Ok(self.buffer)
    }

    /// The next line of it, within `patience`. `None`: it has ended, within a line or after one, or it is silent.
    pub(super) async fn line(&mut self, most: usize, patience: Duration) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.seen..]) {
                let rest = self.buffer.split_off(self.seen + end + 1);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            self.seen = self.buffer.len();
            if self.buffer.len() > most {
                return Err(Failure::new(format!("the API server told of an object larger than {most} bytes")));
            }
            if !self.more(patience).await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self, patience: Duration) -> Result<bool, Failure> {
        match timeout(patience, self.body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Ok(Some(Err(e))) => Err(Failure::new(format!("the connection to the API server broke: {}", chain(&e)))),
            Err(_) => Err(Failure::new(format!("the API server is silent for {} s", patience.as_secs()))),
        }
    }
}

/// An error with what is behind it, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        next = error.source();
    }
    text
}

/// What stands in a query, with all that may mean something there escaped.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_allowed_learns_which_verb_is_missing() {
        let why = refused(StatusCode::FORBIDDEN, "watch", "endpointslices", "/apis/discovery.k8s.io/v1", "no");
        assert!(why.contains("the verb watch on endpointslices of the API group \"discovery.k8s.io\""), "{why}");
        assert!(why.ends_with("rbac.yaml does: no"), "{why}");
        let why = refused(StatusCode::FORBIDDEN, "list", "services", "/api/v1", "");
        assert!(why.contains("API group \"\""), "{why}");
    }

    #[test]
    fn what_a_server_does_not_know_is_listed_anew() {
        let is_gone = |status, why: &str| Failure { status: Some(status), ..Failure::new(why) }.is_gone();
        assert!(is_gone(410, "too old resource version: 1 (2)"));
        assert!(is_gone(504, "the API server refuses (504): Timeout: Too large resource version: 9, current: 5"));
        assert!(!is_gone(504, "the API server refuses (504)") && !is_gone(500, "Too large resource version"));
    }

    #[test]
    fn selectors_are_escaped() {
        assert_eq!(escape("app=shop,tier!=test"), "app%3Dshop%2Ctier%21%3Dtest");
        assert_eq!(escape("a in (b, ü)"), "a%20in%20%28b%2C%20%C3%BC%29");
    }
}

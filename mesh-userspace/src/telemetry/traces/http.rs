//! OTLP over HTTP/1.1, with protobuf.

use super::{Collector, answer::Answer, connect::connect, exporter::Failure, otlp};
use ::http::{
    Request,
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
    response::Parts,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::time::{Duration, SystemTime};

/// The largest answer, in bytes: it says how many spans were not wanted, and why.
const LARGEST: usize = 64 * 1024;

/// Sends to one collector.
pub(super) struct Sender {
    path: String,
    collector: Collector,
    mark: u32,
    /// The connection of the last message.
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Sender {
    pub(super) const fn new(path: String, collector: Collector, mark: u32) -> Self {
        Self { path, collector, mark, open: None }
    }

    /// What it says of them.
    pub(super) async fn send(&mut self, request: &otlp::Request) -> Result<Answer, Failure> {
        let body = Bytes::from(request.encode_to_vec());
        if let Some(mut open) = self.open.take()
            && open.ready().await.is_ok()
            && let Ok(answer) = self.send_by(open, body.clone()).await.map_err(drop)
        {
            return answer;
        }
        // It had ended.
        let stream =
            connect(&self.collector, self.mark).await.map_err(|e| Failure::Later(format!("connect: {e}"), None))?;
        let later = |e: hyper::Error| Failure::Later(causes(&e), None);
        let (open, connection) = handshake(TokioIo::new(stream)).await.map_err(later)?;
        tokio::spawn(connection);
        self.send_by(open, body).await.map_err(later)?
    }

    /// The outer error: it was not answered.
    async fn send_by(
        &mut self,
        mut open: SendRequest<Full<Bytes>>,
        body: Bytes,
    ) -> Result<Result<Answer, Failure>, hyper::Error> {
        let request = Request::post(&self.path)
            .header(HOST, self.collector.authority())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("mesh/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body));
        let request = match request {
            Ok(request) => request,
            Err(e) => return Ok(Err(Failure::Refused(e.to_string()))),
        };
        let (head, body) = open.send_request(request).await?.into_parts();
        let body = match Limited::new(body, LARGEST).collect().await {
            Ok(body) => body.to_bytes(),
            // What it thinks of it is in its status.
            Err(_) => return Ok(judge(&head, &[])),
        };
        self.open = Some(open);
        Ok(judge(&head, &body))
    }
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What an answer says (the specification of OTLP, OTLP/HTTP Response).
fn judge(head: &Parts, body: &[u8]) -> Result<Answer, Failure> {
    let status = head.status;
    match status.as_u16() {
        200..=299 => {
            let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
            Ok(answer.partial_success.into())
        }
        429 | 502..=504 => Err(Failure::Later(format!("it answers {status}"), retry_after(head, SystemTime::now()))),
        _ => Err(Failure::Refused(format!("it answers {status}"))),
    }
}

/// How long it wants to be left alone, from `now` on (RFC 9110, section 10.2.3).
fn retry_after(head: &Parts, now: SystemTime) -> Option<Duration> {
    let wanted = head.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match wanted.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(wanted).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    fn head(status: u16, retry_after: Option<&str>) -> Parts {
        let mut response = ::http::Response::builder().status(status);
        if let Some(wanted) = retry_after {
            response = response.header(RETRY_AFTER, wanted);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn an_answer_says_whether_it_was_taken_may_be_later_or_never_will() {
        let judge = |status, body: &[u8]| super::judge(&head(status, None), body);
        assert_eq!(judge(200, b""), Ok(Answer::default()));
        assert_eq!(judge(202, b"not protobuf"), Ok(Answer::default()));
        let partly = ExportTracePartialSuccess { rejected_spans: 3, error_message: "full".to_owned() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partly) };
        assert_eq!(judge(200, &answer.encode_to_vec()), Ok(Answer { rejected: 3, said: "full".to_owned() }));
        for status in [429, 502, 503, 504] {
            assert!(matches!(judge(status, b""), Err(Failure::Later(_, None))), "{status}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(matches!(judge(status, b""), Err(Failure::Refused(_))), "{status}");
        }
    }

    #[test]
    fn a_collector_says_how_long_it_wants_to_be_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_747);
        let seconds = |wanted| retry_after(&head(503, Some(wanted)), now).map(|wanted| wanted.as_secs());
        assert_eq!((seconds("120"), seconds("Sun, 06 Nov 1994 08:49:37 GMT")), (Some(120), Some(30)));
        for wanted in ["", "-1", "soon", "1.5", "99999999999999999999", "Sun, 06 Nov 1984 08:49:37 GMT"] {
            assert_eq!(seconds(wanted), None, "{wanted}");
        }
        assert!(
            matches!(judge(&head(503, Some("7")), b""), Err(Failure::Later(_, Some(wanted))) if wanted.as_secs() == 7)
        );
    }
}

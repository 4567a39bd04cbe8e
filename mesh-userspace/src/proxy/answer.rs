//! Answers of the proxy's own.

use super::{
    date, fields::Fields, hop::X_MESH_REASON, message::Response, passing::ResponseBody, reason::Reason, record::Record,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, SERVER},
};

/// How a client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// With a status.
    Http,
    /// With a `grpc-status`: its libraries do not show others.
    Grpc,
}

impl Manner {
    pub(super) fn of(headers: &Fields) -> Self {
        let grpc = |value: &[u8]| value.starts_with(b"application/grpc");
        if headers.get(CONTENT_TYPE).is_some_and(grpc) { Self::Grpc } else { Self::Http }
    }
}

/// The answer for a reason, with its usual status.
pub(super) fn because(reason: Reason, manner: Manner, record: Record) -> Response<ResponseBody> {
    with_status(reason.status(), reason, manner, record)
}

/// The answer for a reason.
pub(super) fn with_status(
    status: StatusCode,
    reason: Reason,
    manner: Manner,
    mut record: Record,
) -> Response<ResponseBody> {
    let word = HeaderValue::from_static(reason.word());
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let (status, body, grpc) = match manner {
        Manner::Http if !has_body => (status, Bytes::new(), None),
        Manner::Http => (status, Bytes::from(format!("mesh: {}\n", reason.word())), None),
        Manner::Grpc => (StatusCode::OK, Bytes::new(), Some(grpc_status(status))),
    };
    record.rejected(reason, status);
    let mut response = Response::new(ResponseBody::whole(body, record));
    response.head.status = status;
    let headers = &mut response.head.headers;
    headers.insert(SERVER, &HeaderValue::from_static("mesh"));
    headers.insert(X_MESH_REASON, &word);
    date::add(headers);
    match grpc {
        None => headers.insert(CONTENT_TYPE, &HeaderValue::from_static("text/plain; charset=utf-8")),
        Some(code) => {
            headers.insert(CONTENT_TYPE, &HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", &code);
            headers.insert("grpc-message", &word);
        }
    }
    response
}

/// The answer to a request whose client has gone before it had said all: nobody is told anything, and so nothing is counted
/// as an answer.
pub(super) fn to_nobody(mut record: Record) -> Response<ResponseBody> {
    record.cut_off();
    let mut response = Response::new(ResponseBody::whole(Bytes::new(), record));
    response.head.status = Reason::BadRequest.status();
    response
}

/// What ends an answer of gRPC whose endpoint was lost.
pub(super) fn unavailable() -> HeaderMap {
    let reason = HeaderValue::from_static(Reason::UpstreamReset.word());
    let mut trailers = HeaderMap::with_capacity(3);
    trailers.insert("grpc-status", HeaderValue::from_static("14"));
    trailers.insert("grpc-message", reason.clone());
    trailers.insert(X_MESH_REASON, reason);
    trailers
}

/// The gRPC status of an HTTP status (doc/http-grpc-status-mapping.md of grpc); where a deadline passed, that.
fn grpc_status(status: StatusCode) -> HeaderValue {
    HeaderValue::from_static(match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 | 501 => "12",
        504 => "4",
        429 | 502 | 503 => "14",
        _ => "2",
    })
}

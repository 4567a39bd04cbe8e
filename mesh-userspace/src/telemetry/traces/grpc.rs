//! OTLP over gRPC.

use super::{
    Collector,
    answer::{Answer, said},
    connect::connect,
    exporter::Failure,
    otlp,
};
use ::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use std::error::Error;
use tonic::{
    Code, IntoRequest, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// What is called.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends to one collector.
pub(super) struct Sender {
    collector: Collector,
    mark: u32,
    /// The connection of the last message; `None`: there is none to be relied upon.
    open: Option<Grpc<Channel>>,
}

impl Sender {
    pub(super) const fn new(collector: Collector, mark: u32) -> Self {
        Self { collector, mark, open: None }
    }

    /// What it says of them.
    pub(super) async fn send(&mut self, request: otlp::Request) -> Result<Answer, Failure> {
        // Taken: given up in the middle, or failed, it is not used again.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Grpc::new(self.connect().await?),
        };
        open.ready().await.map_err(|e| Failure::Later(causes(&e), None))?;
        let answer = open.unary(request.into_request(), PathAndQuery::from_static(EXPORT), ProstCodec::default()).await;
        let answer: ExportTraceServiceResponse = answer.map_err(|status| judge(&status))?.into_inner();
        self.open = Some(open);
        Ok(answer.partial_success.into())
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        let (collector, mark) = (self.collector.clone(), self.mark);
        let refused = |e: &dyn Error| Failure::Refused(e.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{}", collector.authority()));
        let endpoint = endpoint.and_then(|endpoint| endpoint.user_agent(concat!("mesh/", env!("CARGO_PKG_VERSION"))));
        let mut endpoint = endpoint.map_err(|e| refused(&e))?;
        if collector.trust.is_some() {
            // The stream below has TLS already; this is what is said in `:scheme`.
            let origin = format!("https://{}", collector.authority()).parse();
            endpoint = endpoint.origin(origin.map_err(|e: ::http::uri::InvalidUri| refused(&e))?);
        }
        let connecting = endpoint.connect_with_connector(tower::service_fn(move |_| {
            let collector = collector.clone();
            async move { connect(&collector, mark).await.map(TokioIo::new) }
        }));
        connecting.await.map_err(|e| Failure::Later(format!("connect: {}", causes(&e)), None))
    }
}

/// The last cause of an error, which says most.
fn causes(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// What a status says (the specification of OTLP, OTLP/gRPC Response).
fn judge(status: &Status) -> Failure {
    let why = match (status.source(), status.message()) {
        (Some(source), _) => causes(source),
        (None, "") => status.code().description().to_owned(),
        // As long as it likes.
        (None, message) => said(message),
    };
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Failure::Later(why, None),
        // The connection broke.
        _ if status.source().is_some() => Failure::Later(why, None),
        code => Failure::Refused(format!("it answers {code:?}: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_it_may_be_taken_later() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded] {
            assert!(matches!(judge(&Status::new(code, "x")), Failure::Later(..)), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::Internal, Code::Unknown] {
            assert!(matches!(judge(&Status::new(code, "x")), Failure::Refused(_)), "{code:?}");
        }
        let mut broken = Status::new(Code::Unknown, "transport error");
        broken.set_source(std::sync::Arc::new(std::io::Error::other("reset")));
        assert_eq!(judge(&broken), Failure::Later("reset".to_owned(), None));
    }
}

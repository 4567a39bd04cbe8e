//! Asking one thing of one member.

use super::wire;
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use prost::Message;
use std::{error::Error, time::Duration};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

/// How long an answer may take. A member that hangs accepts connections and questions, and answers nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The revision asked for is not in the history any more, or not yet.
    #[error("its history is not the one that was known")]
    Forgotten,
    /// More would have been answered than is taken.
    #[error("an answer of more than {LARGEST} bytes")]
    TooLarge,
    /// There is no authentication to pass.
    #[error("authentication is not enabled")]
    Open,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    pub(super) fn other(why: impl ToString) -> Self {
        Self::Other(why.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message();
        match status.code() {
            // Both a history that was compacted and one that is shorter than it was.
            Code::OutOfRange if message.contains("mvcc: required revision") => Self::Forgotten,
            Code::OutOfRange | Code::ResourceExhausted if message.contains("message length too large") => {
                Self::TooLarge
            }
            Code::FailedPrecondition if message.contains("authentication is not enabled") => Self::Open,
            code => match status.source() {
                Some(source) => Self::Other(causes(source)),
                None if message.is_empty() => Self::Other(code.description().to_owned()),
                None => Self::Other(message.to_owned()),
            },
        }
    }
}

/// An error with what caused it, each said once.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // "transport error" says nothing, and some repeat what caused them.
        if text != "transport error" && said.last().is_none_or(|last| !last.contains(&text)) {
            said.push(text);
        }
        next = error.source();
    }
    if said.is_empty() { "the connection broke".to_owned() } else { said.join(": ") }
}

/// A connection to a member.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    pub(super) const fn new(channel: Channel) -> Self {
        Self { channel, token: None }
    }

    /// Becomes a user's.
    pub(super) async fn authenticate(&mut self, name: &str, password: String) -> Result<(), Failure> {
        let question = wire::AuthenticateRequest { name: name.to_owned(), password };
        let answer: wire::AuthenticateResponse = match self.ask(wire::AUTHENTICATE, question).await {
            Ok(answer) => answer,
            // Everyone may do everything there, as etcd's own clients have it.
            Err(Failure::Open) => return Ok(()),
            Err(why) => return Err(why),
        };
        let token = answer.token.parse().map_err(|_| Failure::other("its token is not printable text"))?;
        self.token = Some(token);
        Ok(())
    }

    /// One question, one answer.
    pub(super) async fn ask<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let asked = async {
            let mut grpc = self.grpc().await?;
            let codec = ProstCodec::<Q, A>::default();
            Ok(grpc.unary(self.request(question), PathAndQuery::from_static(path), codec).await?.into_inner())
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(Failure::Other(format!("no answer within {PATIENCE:?}"))))
    }

    /// What happens from a revision on, this one included, to keys from `key` to before `end`. The answer to the creation
    /// has been read.
    pub(super) async fn watch(
        &self,
        key: Vec<u8>,
        end: Vec<u8>,
        revision: i64,
    ) -> Result<(wire::WatchResponse, Streaming<wire::WatchResponse>), Failure> {
        let create = wire::WatchCreateRequest {
            key,
            range_end: end,
            start_revision: revision,
            progress_notify: true,
            fragment: true,
        };
        let asked = async {
            let mut grpc = self.grpc().await?;
            let create = wire::WatchRequest { asked: Some(wire::WatchAsked::Create(create)) };
            // The end of what is asked would be the end of the watch.
            let mut request = self.request(stream::iter([create]).chain(stream::pending()));
            // A member without a leader, cut off from the others, knows nothing new: let it end the watch.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let path = PathAndQuery::from_static(wire::WATCH);
            let codec = ProstCodec::<wire::WatchRequest, wire::WatchResponse>::default();
            let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
            let created = next(&mut answers).await?;
            Ok((created, answers))
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(Failure::Other(format!("no watch within {PATIENCE:?}"))))
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Failure> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        grpc.ready().await.map_err(|e| Failure::Other(causes(&e)))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// What a watch says next. What ended it is an error.
pub(super) async fn next(answers: &mut Streaming<wire::WatchResponse>) -> Result<wire::WatchResponse, Failure> {
    let answer = answers.message().await?.ok_or_else(|| Failure::other("it ended the watch"))?;
    if answer.compact_revision > 0 {
        return Err(Failure::Forgotten);
    }
    if answer.canceled {
        return Err(Failure::Other(match answer.cancel_reason.as_str() {
            "" => "it ended the watch".to_owned(),
            reason => format!("it ended the watch: {reason}"),
        }));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_is_gone_is_told_from_an_answer_that_is_too_large() {
        let of = |code, message: &str| Failure::from(Status::new(code, message));
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(of(Code::OutOfRange, compacted), Failure::Forgotten);
        let future = "etcdserver: mvcc: required revision is a future revision";
        assert_eq!(of(Code::OutOfRange, future), Failure::Forgotten);
        let large = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        assert_eq!(of(Code::OutOfRange, large), Failure::TooLarge);
        assert_eq!(
            of(Code::Unauthenticated, "etcdserver: invalid auth token").to_string(),
            "etcdserver: invalid auth token"
        );
    }

    #[test]
    fn what_caused_an_error_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] std::io::Error);
        let refused = Outer(std::io::Error::other("connection refused"));
        assert_eq!(causes(&refused), "connection refused");
    }
}

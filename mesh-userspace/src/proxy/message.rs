//! Messages: heads with bodies.
//!
//! As those of the `http` crate, which those of HTTP/2 are made from and become, with [`Fields`] in place of a map.

use super::fields::Fields;
use http::{Extensions, Method, StatusCode, Uri, Version, request, response};

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// To what.
    pub uri: Uri,
    /// As what it came.
    pub version: Version,
    /// Its header lines.
    pub headers: Fields,
    /// What HTTP/2 says besides.
    pub extensions: Extensions,
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// What became of the request.
    pub status: StatusCode,
    /// As what it came.
    pub version: Version,
    /// Its header lines.
    pub headers: Fields,
}

/// A head with a body.
#[derive(Debug)]
pub struct Message<H, B> {
    /// What is said first. Apart, as messages go through many hands, and this is large.
    pub head: Box<H>,
    /// What follows.
    pub body: B,
}

/// A request.
pub type Request<B> = Message<RequestHead, B>;

/// A response.
pub type Response<B> = Message<ResponseHead, B>;

impl<H, B> Message<H, B> {
    /// The same with another body.
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Message<H, C> {
        Message { head: self.head, body: change(self.body) }
    }
}

impl<B> Response<B> {
    /// A response of status 200 that says nothing else.
    pub fn new(body: B) -> Self {
        Self { head: Box::default(), body }
    }
}

impl From<request::Parts> for RequestHead {
    fn from(parts: request::Parts) -> Self {
        let request::Parts { method, uri, version, headers, extensions, .. } = parts;
        Self { method, uri, version, headers: headers.into(), extensions }
    }
}

impl From<response::Parts> for ResponseHead {
    fn from(parts: response::Parts) -> Self {
        Self { status: parts.status, version: parts.version, headers: parts.headers.into() }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        Self { head: Box::new(parts.into()), body }
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self { head: Box::new(parts.into()), body }
    }
}

impl From<RequestHead> for request::Parts {
    fn from(head: RequestHead) -> Self {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = head.method;
        parts.uri = head.uri;
        parts.version = head.version;
        parts.headers = head.headers.into();
        parts.extensions = head.extensions;
        parts
    }
}

impl From<ResponseHead> for response::Parts {
    fn from(head: ResponseHead) -> Self {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = head.status;
        parts.version = head.version;
        parts.headers = head.headers.into();
        parts
    }
}

impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        Self::from_parts((*request.head).into(), request.body)
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        Self::from_parts((*response.head).into(), response.body)
    }
}

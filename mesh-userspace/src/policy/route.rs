//! Which of a service's routes is a request for?

use super::query;
use crate::model::{Match, REGEX_SIZE, Route, Target, whole_path};
use http::HeaderName;
use regex::{Regex, RegexBuilder};

/// What of a request decides its route.
pub trait Request {
    /// The method, such as `GET`.
    fn method(&self) -> &str;
    /// The path, without the query, as it was sent.
    fn path(&self) -> &str;
    /// What follows the `?`, as it was sent; empty: nothing.
    fn query(&self) -> &str;
    /// The host (`:authority` or `Host`), with or without a port; empty: none.
    fn host(&self) -> &str;
    /// The values of a header, in order.
    fn header<'r>(&'r self, name: &'r HeaderName) -> impl Iterator<Item = &'r [u8]>;
}

/// The routes of a service, ready to be asked.
#[derive(Debug, Default)]
pub struct Router(Box<[CompiledRoute]>);

/// A route, ready to be asked.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Its place among the service's routes.
    pub index: usize,
    /// What it says.
    pub route: Route,
    path: Path,
    headers: Box<[(HeaderName, Box<[u8]>)]>,
    /// The sum of the weights.
    total: u64,
}

#[derive(Debug)]
enum Path {
    Any,
    Whole,
    Prefix,
    Regex(Box<Regex>),
}

/// Why a route cannot be used. The configuration was checked, so this is a mistake of another source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {index}: {problem}")]
pub struct RouteError {
    /// Its place among the service's routes.
    pub index: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl Router {
    /// The routes of a service, in order.
    ///
    /// # Errors
    /// A regular expression or the name of a header is none.
    pub fn new(routes: &[Route]) -> Result<Self, RouteError> {
        let compile =
            |(index, route)| CompiledRoute::new(index, route).map_err(|problem| RouteError { index, problem });
        routes.iter().enumerate().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the service has none: all requests go to the service itself.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every route, in order.
    #[must_use]
    pub const fn routes(&self) -> &[CompiledRoute] {
        &self.0
    }

    /// The first route that matches. Of a service that has routes, a request without one is answered with 404.
    #[must_use]
    pub fn route(&self, request: &impl Request) -> Option<&CompiledRoute> {
        self.0.iter().find(|route| route.matches(request))
    }
}

impl CompiledRoute {
    fn new(index: usize, route: &Route) -> Result<Self, String> {
        let Match { path, path_prefix, path_regex, headers, .. } = &route.matches;
        let path = if !path.is_empty() {
            Path::Whole
        } else if !path_prefix.is_empty() {
            Path::Prefix
        } else if !path_regex.is_empty() {
            let mut regex = RegexBuilder::new(&whole_path(path_regex));
            Path::Regex(Box::new(regex.size_limit(REGEX_SIZE).build().map_err(|error| error.to_string())?))
        } else {
            Path::Any
        };
        let header = |(name, value): &(String, String)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header"))?;
            Ok((name, value.as_bytes().into()))
        };
        Ok(Self {
            index,
            path,
            headers: headers.iter().map(header).collect::<Result<_, String>>()?,
            total: route.to.iter().map(|target| u64::from(target.weight)).sum(),
            route: route.clone(),
        })
    }

    /// Whether it is for this request.
    #[must_use]
    pub fn matches(&self, request: &impl Request) -> bool {
        let matches = &self.route.matches;
        // What is cheap comes first.
        (matches.method.is_empty() || matches.method == request.method())
            && match &self.path {
                Path::Any => true,
                Path::Whole => matches.path == request.path(),
                Path::Prefix => below(request.path(), &matches.path_prefix).is_some(),
                Path::Regex(regex) => regex.is_match(request.path()),
            }
            && (matches.host.is_empty() || is_host(request.host(), &matches.host))
            && self.headers.iter().all(|(name, value)| request.header(name).any(|found| found == &**value))
            && matches.query.iter().all(|(name, value)| query::has(request.query(), name, value))
    }

    /// The service that gets a request, with its place among the route's; `None`: the route's own service. `chance` is
    /// any number, each as likely as another.
    #[must_use]
    pub fn target(&self, chance: u32) -> Option<(usize, &Target)> {
        let mut point = (u64::from(chance) * self.total) >> 32;
        self.route.to.iter().enumerate().find(|(_, target)| {
            let weight = u64::from(target.weight);
            let found = point < weight;
            point = point.saturating_sub(weight);
            found
        })
    }

    /// The path and query that the endpoint gets in place of these; `None`: they stay.
    ///
    /// What `path_prefix` matched is replaced (as `ReplacePrefixMatch` of the Gateway API does), or the whole path where
    /// the route matches otherwise.
    #[must_use]
    pub fn rewritten(&self, path: &str, query: &str) -> Option<String> {
        let new = self.route.rewrite.path_prefix.as_str();
        if new.is_empty() {
            return None;
        }
        let rest = match self.path {
            Path::Prefix => below(path, &self.route.matches.path_prefix).unwrap_or(""),
            _ => "",
        };
        let new = if rest.is_empty() { new } else { new.trim_end_matches('/') };
        Some(with_query(&[new, rest], query))
    }

    /// Where a redirect sends a request to; `None`: the route has none. `scheme` is `http` or `https`.
    #[must_use]
    pub fn location(&self, scheme: &str, host: &str, path: &str, query: &str) -> Option<String> {
        let redirect = self.route.redirect.as_ref()?;
        let host = if redirect.host.is_empty() { host } else { &redirect.host };
        let path = if redirect.path.is_empty() { path } else { &redirect.path };
        // Without a host a path alone is right as well, as long as none could be read out of it.
        if host.is_empty() {
            return Some(with_query(&["/", path.trim_start_matches('/')], query));
        }
        Some(with_query(&[scheme, "://", host, path], query))
    }
}

fn with_query(parts: &[&str], query: &str) -> String {
    let length = parts.iter().map(|part| part.len()).sum::<usize>() + query.len() + 1;
    let mut text = String::with_capacity(length);
    parts.iter().for_each(|part| text.push_str(part));
    if !query.is_empty() {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// What of `path` lies below `prefix`, from its slash on; `None` if it does not: `/v2x` is not below `/v2`. Whether the
/// prefix ends in a slash does not matter.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Whether `host`, which may have a port, is the one of a route, or one below where that begins with `*.`.
fn is_host(host: &str, wanted: &str) -> bool {
    let host = without_port(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    match wanted.strip_prefix('*') {
        // With the dot before it, and something before the dot.
        Some(domain) => {
            let start = host.len().checked_sub(domain.len()).filter(|start| *start > 0);
            start.and_then(|start| host.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(domain))
        }
        None => host.eq_ignore_ascii_case(wanted),
    }
}

/// A host without its port.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are within brackets.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// Whether something happens to a request that happens to so many of a hundred, in thousandths of a percent (0 to
/// 100,000). `chance` is any number, each as likely as another.
#[must_use]
pub fn hits(percent: u32, chance: u32) -> bool {
    (u64::from(chance) * 100_000) >> 32 < u64::from(percent)
}

#[cfg(test)]
mod tests;

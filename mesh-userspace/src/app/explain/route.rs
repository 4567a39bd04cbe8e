//! Which route a request would take, why not another one, and what the route does with it.

use crate::{
    config,
    model::{Match, Route},
    policy::{CompiledRoute, Router, route::Request},
};
use http::{HeaderName, header};

/// A request that is asked about: a `GET` with no header but `Host`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> Question<'a> {
    /// For this host, and for a path that may have a query.
    pub(super) fn new(host: &'a str, target: &'a str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { host, path, query }
    }
}

impl Request for Question<'_> {
    fn method(&self) -> &'static str {
        "GET"
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> &str {
        self.query
    }

    fn host(&self) -> &str {
        self.host
    }

    fn header<'r>(&'r self, name: &'r HeaderName) -> impl Iterator<Item = &'r [u8]> {
        (name == header::HOST).then_some(self.host.as_bytes()).into_iter()
    }
}

/// What a service's routes say to a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    /// The route's place; `None`: none matches.
    pub(super) index: Option<usize>,
    /// The route in a word, with its number from 1 on.
    pub(super) name: Option<String>,
    /// What it does with the request besides leading it somewhere, a phrase each.
    pub(super) effects: Vec<String>,
    /// Why each route before it does not match, a sentence each.
    pub(super) passed_over: Vec<String>,
}

/// The first of `routes` that matches; `None`: there are none, or they cannot be used.
pub(super) fn choose(routes: &[Route], question: &Question<'_>) -> Option<Choice> {
    let router = Router::new(routes).ok().filter(|router| !router.is_empty())?;
    let found = router.route(question);
    let before = found.map_or(routes.len(), |found| found.index);
    let passed_over = routes.iter().take(before).enumerate().map(|(index, route)| {
        let unmet = criteria(&route.matches).into_iter().filter(|(_, one)| !meets(one, question)).map(|(text, _)| text);
        format!("route {} is not for it, which wants {}", index + 1, unmet.collect::<Vec<_>>().join(", "))
    });
    Some(Choice {
        index: found.map(|found| found.index),
        name: found.map(|found| format!("{}: {}", found.index + 1, described(&found.route.matches))),
        effects: found.map(|found| effects(found, question)).unwrap_or_default(),
        passed_over: passed_over.collect(),
    })
}

/// What a route wants, in the words of the configuration.
fn described(matches: &Match) -> String {
    let all: Vec<String> = criteria(matches).into_iter().map(|(text, _)| text).collect();
    if all.is_empty() { "any request".to_owned() } else { all.join(", ") }
}

/// Everything that a route wants, each in words and alone.
fn criteria(matches: &Match) -> Vec<(String, Match)> {
    let mut all = Vec::new();
    let mut add = |text: String, one: Match| all.push((text, one));
    let Match { path, path_prefix, path_regex, method, host, headers, query } = matches;
    if !path.is_empty() {
        add(format!("path {path}"), Match { path: path.clone(), ..Match::default() });
    }
    if !path_prefix.is_empty() {
        add(format!("path_prefix {path_prefix}"), Match { path_prefix: path_prefix.clone(), ..Match::default() });
    }
    if !path_regex.is_empty() {
        add(format!("path_regex {path_regex}"), Match { path_regex: path_regex.clone(), ..Match::default() });
    }
    if !method.is_empty() {
        add(format!("method {method}"), Match { method: method.clone(), ..Match::default() });
    }
    if !host.is_empty() {
        add(format!("host {host}"), Match { host: host.clone(), ..Match::default() });
    }
    for pair in headers {
        add(format!("header {}: {}", pair.0, pair.1), Match { headers: vec![pair.clone()], ..Match::default() });
    }
    for pair in query {
        add(format!("query {}={}", pair.0, pair.1), Match { query: vec![pair.clone()], ..Match::default() });
    }
    all
}

fn meets(one: &Match, question: &Question<'_>) -> bool {
    let route = Route { matches: one.clone(), ..Route::default() };
    Router::new(&[route]).is_ok_and(|router| router.route(question).is_some())
}

/// What a route does with a request on its way.
fn effects(found: &CompiledRoute, question: &Question<'_>) -> Vec<String> {
    let route = &found.route;
    let mut all = Vec::new();
    if let Some(path) = found.rewritten(question.path, question.query) {
        all.push(format!("its path becomes {path}"));
    }
    if !route.rewrite.host.is_empty() {
        all.push(format!("its host becomes {}", route.rewrite.host));
    }
    for (whose, changes) in [("request", &route.request_headers), ("response", &route.response_headers)] {
        let names = |what: &str, pairs: &[(String, String)]| -> Vec<String> {
            pairs.iter().map(|(name, _)| format!("{what} {name}")).collect()
        };
        let removed = changes.remove.iter().map(|name| format!("remove {name}"));
        let changes: Vec<String> =
            removed.chain(names("set", &changes.set)).chain(names("add", &changes.add)).collect();
        if !changes.is_empty() {
            all.push(format!("headers of the {whose}: {}", changes.join(", ")));
        }
    }
    if let Some(mirror) = &route.mirror {
        all.push(format!("{} are copied to {}", percent(mirror.percent), mirror.service));
    }
    let fault = &route.fault;
    if fault.delay_percent > 0 && !fault.delay.is_zero() {
        let delay = config::Duration::from(fault.delay);
        all.push(format!("{} wait {delay} (fault)", percent(fault.delay_percent)));
    }
    if fault.abort_percent > 0 && fault.abort_status > 0 {
        all.push(format!("{} are answered with {} (fault)", percent(fault.abort_percent), fault.abort_status));
    }
    if let Some(timeout) = route.request_timeout {
        all.push(format!("request_timeout {}", config::Duration::from(timeout)));
    }
    if let Some(retries) = &route.retries {
        all.push(format!("retries.attempts {}", retries.attempts));
    }
    all
}

/// Thousandths of a percent.
fn percent(thousandths: u32) -> String {
    format!("{} %", f64::from(thousandths) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mirror, Rewrite};

    fn route(matches: Match) -> Route {
        Route { matches, ..Route::default() }
    }

    fn canary() -> Route {
        route(Match {
            path_prefix: "/v2".to_owned(),
            headers: vec![("x-canary".to_owned(), "1".to_owned())],
            ..Match::default()
        })
    }

    #[test]
    fn routes_before_the_one_that_matches_say_what_they_want() {
        let routes = [
            canary(),
            Route {
                rewrite: Rewrite { path_prefix: "/".to_owned(), host: String::new() },
                mirror: Some(Mirror { service: "shadow".to_owned(), percent: 2500 }),
                ..route(Match { path_prefix: "/v2".to_owned(), ..Match::default() })
            },
            route(Match::default()),
        ];
        let choice = choose(&routes, &Question::new("web", "/v2/x?a=b")).unwrap();
        assert_eq!((choice.index, choice.name.as_deref()), (Some(1), Some("2: path_prefix /v2")));
        assert_eq!(choice.passed_over, ["route 1 is not for it, which wants header x-canary: 1"]);
        assert_eq!(choice.effects, ["its path becomes /x?a=b", "2.5 % are copied to shadow"]);
        let choice = choose(&routes, &Question::new("web", "/")).unwrap();
        assert_eq!(choice.name.as_deref(), Some("3: any request"));
        assert_eq!(choice.passed_over[0], "route 1 is not for it, which wants path_prefix /v2, header x-canary: 1");
    }

    #[test]
    fn no_route_at_all_is_another_thing_than_none_that_matches() {
        assert_eq!(choose(&[], &Question::new("web", "/")), None);
        let choice = choose(&[canary()], &Question::new("web", "/v2")).unwrap();
        assert_eq!((choice.index, choice.name), (None, None));
    }
}

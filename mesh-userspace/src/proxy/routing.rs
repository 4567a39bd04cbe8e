//! Where a request goes by the routes of its service, and what they change in it.

use super::{
    exchange::host,
    fields::Fields,
    headers::{HeaderEdits, NoHeader},
    message::RequestHead,
    table::Service,
    worker::Worker,
};
use crate::{
    model,
    policy::{CompiledRoute, Router, hits, route::Request},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header::HOST, uri::PathAndQuery};
use std::{sync::Arc, time::Duration};

/// The routes of a service, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct Routes {
    router: Router,
    /// What each changes in requests and in responses.
    edits: Box<[(HeaderEdits, HeaderEdits)]>,
}

impl Routes {
    /// Those of this service. The configuration was checked: what cannot be used all the same matches nothing.
    pub(super) fn new(service: &model::Service) -> Self {
        let edits = |route: &model::Route| {
            let edits = |changes| HeaderEdits::new(changes);
            Ok::<_, NoHeader>((edits(&route.request_headers)?, edits(&route.response_headers)?))
        };
        let edits = service.routes.iter().map(edits).collect::<Result<_, _>>().map_err(|e| e.to_string());
        match (Router::new(&service.routes).map_err(|e| e.to_string()), edits) {
            (Ok(router), Ok(edits)) => Self { router, edits },
            (Err(why), _) | (_, Err(why)) => {
                tracing::error!(service = service.name, "its routes cannot be used: {why}");
                Self::default()
            }
        }
    }
}

/// What becomes of a request that is sent on.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The place of its route; `None`: the service has none.
    route: Option<usize>,
    /// The service that gets it; `None`: the one that was asked for.
    pub(super) target: Option<Arc<Service>>,
}

/// A request that needs no endpoint.
#[derive(Debug)]
pub(super) enum Asked {
    /// No route is for it.
    NoRoute,
    /// Its route leads to a service that is not there.
    NoTarget,
    /// Its route sends the client elsewhere.
    Redirect(StatusCode, HeaderValue),
}

/// Faults that a route makes for one request.
pub(super) struct Faults {
    pub(super) delay: Duration,
    pub(super) abort: Option<StatusCode>,
}

/// Where a request to `service` goes.
///
/// # Errors
/// Nowhere: it is answered.
pub(super) fn way(worker: &Worker, service: &Arc<Service>, parts: &RequestHead) -> Result<Way, Asked> {
    let Some(routes) = &service.routes else { return Ok(Way::default()) };
    let view = View(parts);
    let found = routes.router.route(&view).ok_or(Asked::NoRoute)?;
    if let Some(redirect) = &found.route.redirect {
        let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND);
        let location = found.location("http", view.host(), view.path(), view.query()).unwrap_or_default();
        let location = HeaderValue::try_from(location).map_err(|_| Asked::NoRoute)?;
        return Err(Asked::Redirect(status, location));
    }
    let target = match found.target(fastrand::u32(..)) {
        Some((_, target)) if target.service != *service.name => {
            Some(worker.table().service(&target.service).cloned().ok_or(Asked::NoTarget)?)
        }
        _ => None,
    };
    Ok(Way { route: Some(found.index), target })
}

impl Way {
    fn found<'s>(&self, service: &'s Service) -> Option<(&'s CompiledRoute, &'s (HeaderEdits, HeaderEdits))> {
        let (routes, index) = (service.routes.as_ref()?, self.route?);
        Some((routes.router.routes().get(index)?, routes.edits.get(index)?))
    }

    fn route<'s>(&self, service: &'s Service) -> Option<&'s model::Route> {
        self.found(service).map(|(found, _)| &found.route)
    }

    /// The retries of a request to `service`.
    pub(super) fn retries<'s>(&self, service: &'s Service) -> &'s model::Retries {
        let own = self.route(service).and_then(|route| route.retries.as_ref());
        own.unwrap_or(&service.http().retries)
    }

    /// How long its answer may take by its route, in place of the service's own limit; zero: as long as it does.
    pub(super) fn request_timeout(&self, service: &Service) -> Option<Duration> {
        self.route(service)?.request_timeout
    }

    /// The faults that it gets.
    pub(super) fn fault(&self, service: &Service) -> Option<Faults> {
        let fault = self.route(service).map(|route| route.fault).filter(|f| *f != model::Fault::default())?;
        let delay = if hits(fault.delay_percent, fastrand::u32(..)) { fault.delay } else { Duration::ZERO };
        let aborts = fault.abort_status != 0 && hits(fault.abort_percent, fastrand::u32(..));
        let abort = aborts.then(|| StatusCode::from_u16(fault.abort_status).ok()).flatten();
        Some(Faults { delay, abort })
    }

    /// The service that gets a copy of it.
    pub(super) fn mirror(&self, worker: &Worker, service: &Service) -> Option<Arc<Service>> {
        let mirror = self.route(service)?.mirror.as_ref()?;
        hits(mirror.percent, fastrand::u32(..)).then(|| worker.table().service(&mirror.service).cloned())?
    }

    /// Makes its route's changes in a request.
    pub(super) fn change_request(&self, service: &Service, parts: &mut RequestHead) {
        let Some((found, (edits, _))) = self.found(service) else { return };
        edits.apply(&mut parts.headers);
        let view = View(parts);
        let path = found.rewritten(view.path(), view.query());
        if let Some(path) = path.and_then(|path| PathAndQuery::try_from(path).ok()) {
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.path_and_query = Some(path);
            // Only the path is another one.
            parts.uri = Uri::from_parts(uri).unwrap_or_default();
        }
        let host = found.route.rewrite.host.as_str();
        if let (false, Ok(host)) = (host.is_empty(), HeaderValue::from_str(host)) {
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            (uri.scheme, uri.authority) = (None, None);
            parts.uri = Uri::from_parts(uri).unwrap_or_default();
            parts.headers.insert(HOST, &host);
        }
    }

    /// Makes its route's changes in the answer to it.
    pub(super) fn change_response(&self, service: &Service, headers: &mut Fields) {
        if let Some((_, (_, edits))) = self.found(service) {
            edits.apply(headers);
        }
    }
}

/// A request as routes see it.
pub(super) struct View<'a>(pub(super) &'a RequestHead);

impl Request for View<'_> {
    fn method(&self) -> &str {
        self.0.method.as_str()
    }

    fn path(&self) -> &str {
        self.0.uri.path()
    }

    fn query(&self) -> &str {
        self.0.uri.query().unwrap_or_default()
    }

    fn host(&self) -> &str {
        host(self.0).unwrap_or_default()
    }

    fn header<'r>(&'r self, name: &'r HeaderName) -> impl Iterator<Item = &'r [u8]> {
        self.0.headers.get_all(name)
    }
}

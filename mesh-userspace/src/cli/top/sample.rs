//! One look at the daemon.

use crate::api::{Client, ClientError, Connection, ConnectionOrder, Connections, Endpoint, Request, Service, Status};
use std::{net::SocketAddr, time::Instant};

/// The most connections that are asked for: those that received most.
pub(super) const MOST_CONNECTIONS: u32 = 1_000;

/// What a look is to bring besides the daemon as a whole and its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which endpoints.
    pub(super) endpoints: Endpoints,
    /// Of whom connections, if any.
    pub(super) connections: Option<Scope>,
}

/// Endpoints that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoints {
    /// None.
    None,
    /// Those of all services.
    All,
    /// Those of this one.
    Of(String),
}

/// A part of the mesh: everything, a service, or an endpoint of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// Only what belongs to this service.
    pub(super) service: Option<String>,
    /// Only what goes to this endpoint.
    pub(super) endpoint: Option<SocketAddr>,
}

/// What a look brought.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The daemon as a whole and all services, if the look was at everything.
    pub(super) whole: Option<(Status, Taken<Service>)>,
    /// The endpoints that were wanted.
    pub(super) endpoints: Option<Taken<Endpoint>>,
    /// The connections that were wanted, or why they cannot be had.
    pub(super) connections: Option<Result<Taken<Connection>, String>>,
}

/// A listing, and when it came.
#[derive(Clone, Debug)]
pub(super) struct Taken<T> {
    /// When.
    pub(super) at: Instant,
    /// The listing.
    pub(super) rows: Vec<T>,
}

impl<T> Taken<T> {
    fn now(rows: Vec<T>) -> Self {
        Self { at: Instant::now(), rows }
    }
}

/// Asks the daemon for what is wanted; where the look is not at everything, for nothing else: between two looks at
/// everything there is time enough for rates that mean something.
///
/// # Errors
/// [`ClientError`], but for what says only that something is not there (any more), or cannot be listed.
pub(super) async fn look(client: &Client, wanted: &Wanted, at_everything: bool) -> Result<Sample, ClientError> {
    let whole = match at_everything {
        true => Some((client.status().await?, Taken::now(client.services(None).await?))),
        false => None,
    };
    let endpoints = match &wanted.endpoints {
        Endpoints::None => None,
        Endpoints::All => Some(client.endpoints(None).await?),
        Endpoints::Of(service) => Some(or_none(client.endpoints(Some(service.clone())).await)?),
    };
    let endpoints = endpoints.map(Taken::now);
    let connections = match &wanted.connections {
        None => None,
        Some(Scope { service, endpoint }) => {
            let wanted = Connections {
                service: service.clone(),
                endpoint: *endpoint,
                sort: Some(ConnectionOrder::Received),
                limit: Some(MOST_CONNECTIONS),
            };
            match or_none(client.connections(&Request::Connections(wanted)).await) {
                Ok(rows) => Some(Ok(Taken::now(rows))),
                Err(ClientError::Refused { message, .. }) => Some(Err(message)),
                Err(e) => return Err(e),
            }
        }
    };
    Ok(Sample { whole, endpoints, connections })
}

/// What is gone meanwhile has no rows.
fn or_none<T>(answer: Result<Vec<T>, ClientError>) -> Result<Vec<T>, ClientError> {
    match answer {
        Err(ClientError::Refused { kind, .. }) if kind == "not_found" => Ok(Vec::new()),
        answer => answer,
    }
}

//! What connections carry a second: the difference between two listings.

use crate::api::Connection;
use serde::Serialize;
use std::{collections::HashMap, net::SocketAddr, time::Instant};

/// A connection, and where it was seen before what it carries a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rated {
    #[serde(flatten)]
    pub(super) connection: Connection,
    /// Only while it is watched.
    #[serde(flatten)]
    pub(super) rates: Option<Rates>,
}

/// Bytes a second, as the client sees them; null: not known before the next look.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    #[serde(rename = "sent_bytes_per_s")]
    pub(super) sent: Option<f64>,
    #[serde(rename = "received_bytes_per_s")]
    pub(super) received: Option<f64>,
}

impl From<Connection> for Rated {
    fn from(connection: Connection) -> Self {
        Self { connection, rates: None }
    }
}

/// What tells a connection from every other one at the same time: its namespace and both ends.
type Key = (Option<u64>, Option<SocketAddr>, SocketAddr);

/// The listing before.
#[derive(Default)]
pub(super) struct Before {
    at: Option<Instant>,
    /// Sent and received bytes.
    carried: HashMap<Key, (u64, u64)>,
}

impl Before {
    /// Says of each connection of a listing that was taken at `now` what it carried a second since the one before.
    pub(super) fn rate(&mut self, connections: &mut [Rated], now: Instant) {
        let elapsed = self.at.map(|at| now.duration_since(at).as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let mut carried = HashMap::with_capacity(connections.len());
        for rated in connections {
            let c = &rated.connection;
            let key = (c.client.netns, c.client.address, c.endpoint);
            // One that is younger than the listing before has carried all it has since then.
            let is_new = elapsed.is_some_and(|seconds| c.age_ms < seconds * 1000.0);
            let before = if is_new { Some((0, 0)) } else { self.carried.get(&key).copied() };
            let rate = |now: u64, before: Option<u64>| Some(now.saturating_sub(before?) as f64 / elapsed?);
            rated.rates = Some(Rates {
                sent: rate(c.sent_bytes, before.map(|b| b.0)),
                received: rate(c.received_bytes, before.map(|b| b.1)),
            });
            carried.insert(key, (c.sent_bytes, c.received_bytes));
        }
        (self.at, self.carried) = (Some(now), carried);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use std::time::Duration;

    fn rates(before: &mut Before, connection: &Connection, now: Instant) -> (Option<f64>, Option<f64>) {
        let mut listing = [Rated::from(connection.clone())];
        before.rate(&mut listing, now);
        let rates = listing[0].rates.unwrap();
        (rates.sent, rates.received)
    }

    #[test]
    fn a_rate_is_what_came_between_two_listings() {
        let (mut before, start) = (Before::default(), Instant::now());
        let mut connection = sample::connections().swap_remove(0);
        assert_eq!(rates(&mut before, &connection, start), (None, None), "nothing to compare with");
        connection.sent_bytes += 3000;
        assert_eq!(rates(&mut before, &connection, start + Duration::from_secs(2)), (Some(1500.0), Some(0.0)));
    }

    #[test]
    fn a_new_connection_has_carried_everything_since_the_listing_before() {
        let (mut before, start) = (Before::default(), Instant::now());
        let mut connection = sample::connections().swap_remove(0);
        let _ = rates(&mut before, &connection, start);
        // The same ends again, though less carried: another connection.
        (connection.sent_bytes, connection.received_bytes, connection.age_ms) = (10, 20, 900.0);
        assert_eq!(rates(&mut before, &connection, start + Duration::from_secs(1)), (Some(10.0), Some(20.0)));
        // An old one that was not listed before, because of a limit.
        connection.client.address = None;
        connection.age_ms = 5000.0;
        assert_eq!(rates(&mut before, &connection, start + Duration::from_secs(2)), (None, None));
    }
}

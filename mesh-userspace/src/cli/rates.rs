//! What counts up a second: the difference between two listings.

use super::units::approximate;
use crate::api::Connection;
use serde::Serialize;
use std::{collections::HashMap, hash::Hash, net::SocketAddr, time::Instant};

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

/// The connections of the listing before.
#[derive(Default)]
pub(super) struct Before(Totals<Key, 2>);

impl Before {
    /// Says of each connection of a listing that was taken at `now` what it carried a second since the one before.
    pub(super) fn rate(&mut self, connections: &mut [Rated], now: Instant) {
        let carried = |rated: &Rated| {
            let c = &rated.connection;
            ((c.client.netns, c.client.address, c.endpoint), [c.sent_bytes, c.received_bytes])
        };
        // One that is younger than the listing before has carried all it has since then.
        let is_new = |rated: &Rated, seconds: f64| rated.connection.age_ms < seconds * 1000.0;
        let rates = self.0.rates(connections, now, carried, is_new);
        for (rated, rates) in connections.iter_mut().zip(rates) {
            rated.rates =
                Some(Rates { sent: rates.map(|[sent, _]| sent), received: rates.map(|[_, received]| received) });
        }
    }
}

/// The totals of the listing before, by what they belong to.
pub(super) struct Totals<K, const N: usize> {
    at: Option<Instant>,
    of: HashMap<K, [u64; N]>,
}

// Not derived: that would ask for a default key.
impl<K, const N: usize> Default for Totals<K, N> {
    fn default() -> Self {
        Self { at: None, of: HashMap::new() }
    }
}

impl<K: Eq + Hash, const N: usize> Totals<K, N> {
    /// By how much the totals of each row of a listing taken at `now` rose a second since the one before; `None` where
    /// that cannot be told: it is the first, the row was not in it, or a total fell (whoever counts began anew).
    /// `is_new` says of a row and a time in seconds whether all its totals come from that time.
    pub(super) fn rates<R>(
        &mut self,
        rows: &[R],
        now: Instant,
        totals: impl Fn(&R) -> (K, [u64; N]),
        is_new: impl Fn(&R, f64) -> bool,
    ) -> Vec<Option<[f64; N]>> {
        let elapsed = self.elapsed(now);
        let mut of = HashMap::with_capacity(rows.len());
        let rates = rows.iter().map(|row| {
            let (key, now) = totals(row);
            let before = match elapsed {
                Some(seconds) if is_new(row, seconds) => Some([0; N]),
                _ => self.of.get(&key).copied(),
            };
            of.insert(key, now);
            rise(before?, now, elapsed?)
        });
        let rates = rates.collect();
        (self.at, self.of) = (Some(now), of);
        rates
    }

    /// Seconds since the listing before; `None`: there was none.
    fn elapsed(&self, now: Instant) -> Option<f64> {
        self.at.map(|at| now.saturating_duration_since(at).as_secs_f64()).filter(|seconds| *seconds > 0.0)
    }
}

fn rise<const N: usize>(before: [u64; N], now: [u64; N], seconds: f64) -> Option<[f64; N]> {
    let mut rates = [0.0; N];
    for ((rate, now), before) in rates.iter_mut().zip(now).zip(before) {
        *rate = approximate(now.checked_sub(before)?) / seconds;
    }
    Some(rates)
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

    #[test]
    fn a_total_that_fell_has_no_rate_until_the_next_look() {
        let (mut totals, start) = (Totals::<&str, 2>::default(), Instant::now());
        let mut look = |seconds: u64, rows: &[(&'static str, [u64; 2])]| {
            totals.rates(rows, start + Duration::from_secs(seconds), |row| *row, |_, _| false)
        };
        assert_eq!(look(0, &[("a", [10, 10])]), [None]);
        assert_eq!(look(2, &[("a", [14, 10]), ("b", [7, 7])]), [Some([2.0, 0.0]), None]);
        assert_eq!(look(3, &[("b", [8, 7]), ("a", [3, 10])]), [Some([1.0, 0.0]), None]);
        assert_eq!(look(4, &[("a", [3, 11])]), [Some([0.0, 1.0])]);
        assert_eq!(look(4, &[("a", [3, 11])]), [None], "no time has passed");
    }
}

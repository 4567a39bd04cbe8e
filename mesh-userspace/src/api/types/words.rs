//! The fixed words of the contract.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A word that is none of those expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {expected}, not {word:?}")]
pub struct UnknownWord {
    word: String,
    expected: String,
}

/// Declares an enum whose values are words in JSON, in tables and on the command line.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in JSON and tables.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|value| value.word() == word).ok_or_else(|| UnknownWord {
                    word: word.to_owned(),
                    expected: [$($word,)+].join(", "),
                })
            }
        }
    };
}

words! {
    /// What the daemon does with connections.
    Mode {
        /// The kernel programs translate.
        Ebpf = "ebpf",
        /// Only HTTP services, through the explicit proxy.
        Userspace = "userspace",
        /// The kernel programs count and translate nothing.
        Observe = "observe",
    }
}

words! {
    /// How a service's connections are treated.
    Protocol {
        /// Connections, balanced in the kernel.
        Tcp = "tcp",
        /// Datagrams.
        Udp = "udp",
        /// HTTP 1.1 and 2.
        Http = "http",
        /// gRPC.
        Grpc = "grpc",
        /// HTTP if the first bytes say so, else tcp.
        Auto = "auto",
    }
}

words! {
    /// How an endpoint is picked.
    Policy {
        /// Each in turn, heavier ones more often.
        RoundRobin = "round_robin",
        /// Any, in proportion to its weight.
        Random = "random",
        /// The one with fewer connections of two.
        LeastConnections = "least_connections",
        /// The same for the same hash, whatever else comes and goes.
        Maglev = "maglev",
        /// The one expected to answer first; HTTP only.
        PeakEwma = "peak_ewma",
    }
}

words! {
    /// What health checks say of an endpoint.
    Health {
        /// They succeed.
        Healthy = "healthy",
        /// They fail.
        Unhealthy = "unhealthy",
        /// Not checked, or not yet.
        Unknown = "unknown",
    }
}

words! {
    /// State of a circuit breaker, in the electrical sense.
    CircuitState {
        /// Traffic flows.
        Closed = "closed",
        /// Traffic is refused.
        Open = "open",
        /// Probes decide.
        HalfOpen = "half_open",
    }
}

words! {
    /// Which connections come first in a listing.
    ConnectionOrder {
        /// Those that sent most.
        Sent = "sent",
        /// Those that received most.
        Received = "received",
        /// The oldest.
        Age = "age",
        /// Those with the longest round trip.
        Rtt = "rtt",
    }
}

words! {
    /// Which way a connection goes.
    Path {
        /// From application to endpoint, by the kernel alone.
        Direct = "direct",
        /// Through the daemon.
        Proxied = "proxied",
    }
}

words! {
    /// What becomes of a connection or a request.
    Decision {
        /// It goes to one of the service's endpoints.
        Forwarded = "forwarded",
        /// The application gets `ECONNREFUSED`, or an answer that says why it is not served.
        Refused = "refused",
        /// The daemon answers the request, as its route says.
        Answered = "answered",
        /// It goes where the application said, untouched.
        Passed = "passed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_json_is_the_word_in_tables() {
        for policy in Policy::ALL {
            assert_eq!(serde_json::to_string(policy).unwrap(), format!("{:?}", policy.word()));
            assert_eq!(policy.word().parse(), Ok(*policy));
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        assert_eq!(
            "fastest".parse::<Policy>().unwrap_err().to_string(),
            r#"expected one of round_robin, random, least_connections, maglev, peak_ewma, not "fastest""#
        );
    }
}

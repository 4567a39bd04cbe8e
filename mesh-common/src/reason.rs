//! Why a connection was not forwarded, or failed: a number for the kernel, a word for people.

/// Declares a numbered enum with the words that metrics, logs and JSON use.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant,)+];
            /// How many values there are: the length of a row of counters.
            pub const COUNT: usize = [$($word,)+].len();

            /// The value with this number; `None`: there is none.
            #[must_use]
            pub fn from_number(number: u32) -> Option<Self> {
                Self::ALL.get(usize::try_from(number).ok()?).copied()
            }

            /// The word in metrics, logs and JSON.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// Why a connect to a VIP was not simply sent to an endpoint. Numbers index the service's row of counters.
    Reason {
        /// Refused: the service has no endpoint that can be chosen.
        NoEndpoint = "no_endpoint",
        /// Refused: its endpoints are of a family that this socket cannot reach.
        FamilyMismatch = "family_mismatch",
        /// Refused: the circuit of every endpoint that this socket can reach is open.
        CircuitOpen = "circuit_open",
        /// Refused: rows kept changing under the hook. Not expected to be seen.
        StaleRows = "stale_rows",
        /// Passed untouched: `mesh bypass on`, or `dataplane.bypass`.
        Bypass = "bypass",
        /// Passed untouched: `dataplane.mode: observe`.
        Observe = "observe",
        /// Passed untouched: the socket carries the daemon's own mark.
        Own = "own",
        /// Passed untouched: the daemon has been gone for `dataplane.stale_after`.
        Stale = "stale",
        /// Forwarded, but TCP never began: no route to the endpoint, or no local port. Not the endpoint's fault.
        LocalTrouble = "local_trouble",
        /// Forwarded, but the kernel had no memory for the connection's record: `getpeername` shows the endpoint, and
        /// its bytes are not counted.
        Untracked = "untracked",
        /// Passed by the daemon, to an endpoint: it does not listen in this network namespace.
        NoListener = "no_listener",
        /// Passed by the daemon, to an endpoint: the threads that accept connections give no sign of life.
        DaemonDown = "daemon_down",
        /// Refused (`when_daemon_down: refuse`): as `NoListener`.
        NoListenerRefused = "no_listener",
        /// Refused (`when_daemon_down: refuse`): as `DaemonDown`.
        DaemonDownRefused = "daemon_down",
    }
}

impl Reason {
    /// Whether the connect was refused with `ECONNREFUSED`.
    #[inline(always)]
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(
            self,
            Self::NoEndpoint
                | Self::FamilyMismatch
                | Self::CircuitOpen
                | Self::StaleRows
                | Self::NoListenerRefused
                | Self::DaemonDownRefused
        )
    }

    /// Whether the connect went on past those who would have taken it: to the VIP itself, untouched, or, past the
    /// daemon, to an endpoint.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Bypass | Self::Observe | Self::Own | Self::Stale | Self::NoListener | Self::DaemonDown)
    }
}

words! {
    /// How a connect failed: the `reason` of `mesh_tcp_connect_failures_total`.
    Failure {
        /// `ECONNREFUSED`.
        Refused = "refused",
        /// `ETIMEDOUT`.
        Timeout = "timeout",
        /// `EHOSTUNREACH` or `ENETUNREACH`.
        Unreachable = "unreachable",
        /// `ECONNRESET` or `EPIPE`.
        Reset = "reset",
        /// Anything else the network or the peer did.
        Other = "other",
    }
}

impl Failure {
    /// The failure behind a socket's error (`sk_err`) when it closes before it was established.
    ///
    /// `None` for 0: our own side gave up (cancelled, happy eyeballs), which is held against nobody.
    #[inline(always)]
    #[must_use]
    pub const fn from_errno(errno: i32) -> Option<Self> {
        // Numbers of asm-generic/errno.h, which all supported architectures share.
        match errno {
            0 => None,
            111 => Some(Self::Refused),
            110 => Some(Self::Timeout),
            113 | 101 => Some(Self::Unreachable),
            104 | 32 => Some(Self::Reset),
            _ => Some(Self::Other),
        }
    }
}

/// One service's row of counters, indexed by [`Reason`].
pub type ServiceCounts = [u64; Reason::COUNT];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_back_to_its_reason_and_no_other_number_does() {
        assert!(Reason::ALL.into_iter().all(|reason| Reason::from_number(reason as u32) == Some(reason)));
        assert_eq!([Reason::COUNT as u32, 256, u32::MAX].map(Reason::from_number), [None; 3]);
    }

    #[test]
    fn a_word_names_one_reason_in_each_metric() {
        for metric in [Reason::refuses, Reason::passes] {
            let mut words: Vec<_> = Reason::ALL.into_iter().filter(|r| metric(*r)).map(Reason::word).collect();
            let all = words.len();
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), all);
        }
    }
}

//! What to believe of what the DNS answers, and when to look again.

use super::records::{Srv, by_addresses, by_services};
use crate::discovery::Said;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// So many answers in a row that nobody is there are believed.
const BELIEVED: u32 = 3;

/// The shortest time from one look to the next.
const SOONEST: Duration = Duration::from_secs(1);

/// What a name is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its addresses, which listen at one port.
    Addresses { name: String, port: u16 },
    /// Records that name targets and ports.
    Services { name: String },
}

impl Asked {
    /// What a key of the source asks for: `NAME:PORT`, or `srv:NAME`.
    pub(super) fn parse(key: &str) -> Option<Self> {
        if let Some(name) = key.strip_prefix("srv:") {
            return Some(Self::Services { name: name.to_owned() });
        }
        let (name, port) = key.rsplit_once(':')?;
        Some(Self::Addresses { name: name.to_owned(), port: port.parse().ok()? })
    }
}

/// An answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply<T> {
    /// Records, and how long they hold.
    Records(Vec<T>, Duration),
    /// There are none, and how long that holds, if it says so.
    Nobody(Option<Duration>),
    /// There was no answer: why.
    Failed(String),
}

/// All that one look brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Which services there are; `None`: that was not the question.
    pub(super) services: Option<Reply<Srv>>,
    /// By name, the IPv4 and the IPv6 addresses.
    pub(super) hosts: Vec<(String, [Reply<IpAddr>; 2])>,
}

/// What follows from a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether anything was answered, be it that nobody is there.
    pub(super) answered: bool,
    /// What is in force without being confirmed, or missing: why.
    pub(super) failed: Option<String>,
    /// All that is known; `None`: nothing yet that can be believed.
    pub(super) said: Option<Said>,
    /// When to look again.
    pub(super) again: Duration,
}

/// What is known of a name.
#[derive(Debug)]
pub(super) struct Known {
    asked: Asked,
    services: Belief<Srv>,
    hosts: BTreeMap<String, [Belief<IpAddr>; 2]>,
    /// Looks in a row that failed, or said what was not believed.
    misses: u32,
}

/// What is known by one question.
#[derive(Debug)]
struct Belief<T> {
    /// `None`: nothing yet.
    records: Option<Vec<T>>,
    /// Answers in a row that nobody is there.
    denials: u32,
}

impl<T> Default for Belief<T> {
    fn default() -> Self {
        Self { records: None, denials: 0 }
    }
}

impl<T> Belief<T> {
    /// Takes an answer. `beside`: another question about the same was answered with records, so that there being none of
    /// this kind is no wonder. Returns whether it is in doubt.
    fn hear(&mut self, reply: Reply<T>, beside: bool) -> bool {
        match reply {
            Reply::Records(records, _) => {
                *self = Self { records: Some(records), denials: 0 };
                false
            }
            Reply::Nobody(_) => {
                self.denials = self.denials.saturating_add(1);
                let known = self.records.as_ref().map(Vec::is_empty);
                if self.denials >= BELIEVED || known == Some(true) || (known.is_none() && beside) {
                    self.records = Some(Vec::new());
                    return false;
                }
                true
            }
            Reply::Failed(_) => false,
        }
    }

    fn records(&self) -> &[T] {
        self.records.as_deref().unwrap_or_default()
    }
}

/// What a look says of time and touch.
#[derive(Debug, Default)]
struct Sum {
    answered: bool,
    failed: Option<String>,
    doubt: bool,
    /// The shortest time for which records hold.
    holds: Option<Duration>,
    /// The shortest time for which there are none.
    nobody: Option<Duration>,
}

impl Sum {
    fn note<T>(&mut self, reply: &Reply<T>) {
        let least = |known: Option<Duration>, ttl: Duration| Some(known.map_or(ttl, |known| known.min(ttl)));
        match reply {
            Reply::Records(_, ttl) => self.holds = least(self.holds, *ttl),
            Reply::Nobody(Some(ttl)) => self.nobody = least(self.nobody, *ttl),
            Reply::Nobody(None) | Reply::Failed(_) => {}
        }
    }
}

impl Known {
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked, services: Belief::default(), hosts: BTreeMap::new(), misses: 0 }
    }

    /// Takes what a look brought. `refresh`: the longest time to the next. `chance`: from 0 to 1, by how much of a tenth
    /// that is shortened, lest everybody asks at one moment.
    pub(super) fn hear(&mut self, report: Report, refresh: Duration, chance: f64) -> Verdict {
        let mut sum = Sum::default();
        self.hear_services(report.services, &mut sum);
        for (name, replies) in report.hosts {
            self.hear_host(name, replies, &mut sum);
        }
        self.misses = if sum.doubt || sum.failed.is_some() { self.misses.saturating_add(1) } else { 0 };
        Verdict {
            said: self.said(),
            again: again(sum.holds.or(sum.nobody), self.misses, refresh, chance),
            answered: sum.answered,
            failed: sum.failed,
        }
    }

    fn hear_services(&mut self, reply: Option<Reply<Srv>>, sum: &mut Sum) {
        let Some(reply) = reply else { return };
        sum.note(&reply);
        match &reply {
            Reply::Failed(why) => sum.failed = Some(why.clone()),
            Reply::Nobody(_) => sum.answered = true,
            Reply::Records(records, _) => {
                self.hosts.retain(|name, _| records.iter().any(|srv| srv.target == *name));
            }
        }
        sum.doubt |= self.services.hear(reply, false);
    }

    fn hear_host(&mut self, name: String, replies: [Reply<IpAddr>; 2], sum: &mut Sum) {
        let answered = replies.iter().any(|reply| !matches!(reply, Reply::Failed(_)));
        let beside = replies.iter().any(|reply| matches!(reply, Reply::Records(..)));
        sum.answered |= answered;
        let beliefs = self.hosts.entry(name).or_default();
        for (belief, reply) in beliefs.iter_mut().zip(replies) {
            sum.note(&reply);
            match &reply {
                // Servers that answer for one kind of addresses only are common; nothing is missing then.
                Reply::Failed(why) if !answered || !belief.records().is_empty() => {
                    sum.failed.get_or_insert_with(|| why.clone());
                }
                _ => {}
            }
            sum.doubt |= belief.hear(reply, beside);
        }
    }

    /// All that is known.
    fn said(&self) -> Option<Said> {
        let of = |name: &str| -> Vec<IpAddr> {
            self.hosts.get(name).into_iter().flatten().flat_map(|belief| belief.records().iter().copied()).collect()
        };
        let instances = match &self.asked {
            Asked::Addresses { name, port } => by_addresses(*port, of(name)),
            Asked::Services { .. } => by_services(self.services.records(), of),
        };
        // That nobody is there is known only when it is known of everything.
        let settled = || self.hosts.values().flatten().all(|belief| belief.records.is_some());
        let nobody = match self.asked {
            Asked::Addresses { .. } => !self.hosts.is_empty() && settled(),
            Asked::Services { .. } => {
                self.services.records.as_ref().is_some_and(|records| records.is_empty() || settled())
            }
        };
        (!instances.is_empty() || nobody).then_some(Said { instances, description: None })
    }
}

/// When to look again: after what holds for `ttl`, within bounds; after misses perhaps sooner, at first after a second and
/// each time twice as long.
fn again(ttl: Option<Duration>, misses: u32, refresh: Duration, chance: f64) -> Duration {
    let ttl = ttl.unwrap_or(refresh);
    let wait = match misses {
        0 => ttl,
        // What was answered runs out meanwhile, whatever was not.
        misses => ttl.min(SOONEST.saturating_mul(2u32.saturating_pow(misses - 1))),
    };
    let wait = wait.clamp(SOONEST, refresh.max(SOONEST));
    wait.saturating_sub(wait.mul_f64(chance.clamp(0.0, 1.0) / 10.0)).max(SOONEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(30);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn known() -> Known {
        Known::new(Asked::parse("web.test:80").unwrap())
    }

    fn report(v4: Reply<IpAddr>, v6: Reply<IpAddr>) -> Report {
        Report { services: None, hosts: vec![("web.test".to_owned(), [v4, v6])] }
    }

    fn records(ips: &[u8], ttl: u64) -> Reply<IpAddr> {
        Reply::Records(ips.iter().map(|n| ip(*n)).collect(), seconds(ttl))
    }

    fn nobody() -> Reply<IpAddr> {
        Reply::Nobody(Some(seconds(300)))
    }

    fn failed() -> Reply<IpAddr> {
        Reply::Failed("timed out".to_owned())
    }

    fn addresses(verdict: &Verdict) -> Option<Vec<String>> {
        let said = verdict.said.as_ref()?;
        Some(said.instances.iter().map(|i| i.endpoint.address.to_string()).collect())
    }

    #[test]
    fn a_key_says_what_is_asked() {
        assert_eq!(Asked::parse("a.b:80"), Some(Asked::Addresses { name: "a.b".to_owned(), port: 80 }));
        assert_eq!(Asked::parse("srv:_http._tcp.a"), Some(Asked::Services { name: "_http._tcp.a".to_owned() }));
        assert_eq!(Asked::parse("a"), None);
        assert_eq!(Asked::parse("a:99999"), None);
    }

    #[test]
    fn ttls_are_respected_within_bounds_and_shortened_by_a_tenth_at_most() {
        let again = |ttl, chance| known().hear(report(records(&[1], ttl), nobody()), REFRESH, chance).again;
        assert_eq!(again(5, 0.0), seconds(5));
        assert_eq!(again(5, 1.0), Duration::from_millis(4500));
        assert_eq!(again(0, 1.0), seconds(1));
        assert_eq!(again(10 * 365 * 24 * 3600, 0.0), REFRESH);
    }

    #[test]
    fn a_full_answer_is_believed_at_once_and_the_other_kind_need_not_be_there() {
        let mut known = known();
        let verdict = known.hear(report(records(&[1, 2], 5), nobody()), REFRESH, 0.0);
        assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(verdict.answered && verdict.failed.is_none());
        let verdict = known.hear(report(records(&[3], 5), nobody()), REFRESH, 0.0);
        assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.3:80"]);
    }

    #[test]
    fn that_nobody_is_left_is_believed_on_repetition() {
        let mut known = known();
        known.hear(report(records(&[1], 5), nobody()), REFRESH, 0.0);
        for wait in [1, 2] {
            let verdict = known.hear(report(nobody(), nobody()), REFRESH, 0.0);
            assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.1:80"]);
            assert_eq!(verdict.again, seconds(wait), "soon again");
        }
        let verdict = known.hear(report(nobody(), nobody()), REFRESH, 0.0);
        assert_eq!((addresses(&verdict), verdict.again), (Some(Vec::new()), REFRESH));
    }

    #[test]
    fn a_name_that_never_was_is_answered_at_once_and_empty_later() {
        let mut known = known();
        for said in [None, None, Some(Vec::new())] {
            let verdict = known.hear(report(nobody(), nobody()), REFRESH, 0.0);
            assert!(verdict.answered);
            assert_eq!(addresses(&verdict), said);
        }
    }

    #[test]
    fn one_full_answer_ends_the_doubt() {
        let mut known = known();
        known.hear(report(records(&[1], 5), nobody()), REFRESH, 0.0);
        for _ in 0..5 {
            known.hear(report(nobody(), nobody()), REFRESH, 0.0);
            let verdict = known.hear(report(nobody(), nobody()), REFRESH, 0.0);
            assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.1:80"]);
            known.hear(report(records(&[1], 5), nobody()), REFRESH, 0.0);
        }
    }

    #[test]
    fn what_fails_stays_as_it_was_and_is_tried_at_growing_distances() {
        let mut known = known();
        known.hear(report(records(&[1], 5), nobody()), REFRESH, 0.0);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            let verdict = known.hear(report(failed(), failed()), REFRESH, 0.0);
            assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.1:80"]);
            assert_eq!(verdict.again, seconds(wait));
            assert!(!verdict.answered && verdict.failed.is_some());
        }
        let verdict = known.hear(report(records(&[1], 5), nobody()), REFRESH, 0.0);
        assert_eq!((verdict.again, verdict.failed), (seconds(5), None));
        let never = Known::new(Asked::parse("web.test:80").unwrap()).hear(report(failed(), failed()), REFRESH, 0.0);
        assert_eq!(never.said, None);
    }

    #[test]
    fn what_is_answered_is_looked_up_when_it_runs_out_whatever_else_fails() {
        let srv = |target: &str| Srv { priority: 1, weight: 1, port: 9000, target: target.to_owned() };
        let mut known = Known::new(Asked::parse("srv:_http._tcp.web.test").unwrap());
        for wait in [1, 2, 4, 5, 5] {
            let report = Report {
                services: Some(Reply::Records(vec![srv("a"), srv("b")], seconds(20))),
                hosts: vec![("a".to_owned(), [records(&[1], 5), nobody()]), ("b".to_owned(), [failed(), failed()])],
            };
            assert_eq!(known.hear(report, REFRESH, 0.0).again, seconds(wait));
        }
    }

    #[test]
    fn a_kind_that_is_never_answered_is_not_missed_and_one_that_was_is_kept() {
        let v6 = || Reply::Records(vec!["fd00::1".parse().unwrap()], seconds(5));
        let mut known = known();
        let verdict = known.hear(report(records(&[1], 5), failed()), REFRESH, 0.0);
        assert_eq!((addresses(&verdict).unwrap().len(), verdict.failed), (1, None));
        known.hear(report(records(&[1], 5), v6()), REFRESH, 0.0);
        let verdict = known.hear(report(records(&[2], 5), failed()), REFRESH, 0.0);
        assert_eq!(addresses(&verdict).unwrap(), ["10.0.0.2:80", "[fd00::1]:80"]);
        assert!(verdict.failed.is_some());
    }

    #[test]
    fn a_target_that_is_not_answered_keeps_its_addresses() {
        let srv = |target: &str| Srv { priority: 1, weight: 1, port: 9000, target: target.to_owned() };
        let services = |targets: &[&str]| Some(Reply::Records(targets.iter().map(|t| srv(t)).collect(), seconds(5)));
        let mut known = Known::new(Asked::parse("srv:_http._tcp.web.test").unwrap());
        let host = |name: &str, v4| (name.to_owned(), [v4, nobody()]);
        let first = Report {
            services: services(&["a", "b"]),
            hosts: vec![host("a", records(&[1], 5)), host("b", records(&[2], 5))],
        };
        assert_eq!(addresses(&known.hear(first, REFRESH, 0.0)).unwrap(), ["10.0.0.1:9000", "10.0.0.2:9000"]);
        let second = Report {
            services: services(&["a", "b"]),
            hosts: vec![host("a", records(&[3], 5)), ("b".to_owned(), [failed(), failed()])],
        };
        let verdict = known.hear(second, REFRESH, 0.0);
        assert_eq!(
            addresses(&verdict).unwrap(),
            ["10.0.0.2:9000", "10.0.0.3:9000"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>()
        );
        assert!(verdict.failed.is_some());
        let third = Report { services: services(&["a"]), hosts: vec![host("a", records(&[3], 5))] };
        assert_eq!(addresses(&known.hear(third, REFRESH, 0.0)).unwrap(), ["10.0.0.3:9000"]);
        let lost = Report { services: Some(Reply::Failed("refused".to_owned())), hosts: Vec::new() };
        let verdict = known.hear(lost, REFRESH, 0.0);
        assert_eq!((addresses(&verdict).unwrap().len(), verdict.answered), (1, false));
    }
}

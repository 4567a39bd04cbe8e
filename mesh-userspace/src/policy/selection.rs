//! What is each endpoint's weight, by locality, health, circuits and warmth?
//!
//! The rules, in their order:
//!
//! 1. An endpoint that is *out* (weight 0) gets nothing, ever.
//! 2. An unhealthy endpoint gets nothing, unless every endpoint that is in is unhealthy: then health is ignored (*panic*).
//! 3. Tiers are filled, nearest first. A tier's *share* is the weight of its usable endpoints (healthy, circuit admits)
//!    by the weight of all its endpoints that are in. With `share ≥ spill_below` it takes all that is left; else it
//!    takes `share / spill_below` of that, and the rest goes to the next tier. What the last tier leaves goes back to
//!    all, in proportion to what they took. This is Envoy's rule for priority levels, with `1 / spill_below` as its
//!    overprovisioning factor (1.4 there, 1 / 0.7 = 1.43 here), and weights where Envoy counts hosts
//!    (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority>).
//! 4. Within a tier, healthy endpoints share by weight × warmth. One whose circuit is open keeps its slots while its tier
//!    takes everything: the kernel passes over them, to endpoints of the same tier. Where several tiers share it would
//!    pass over to the others as well, so there the tier's part is that of the usable ones, and who is open keeps a
//!    [`TRICKLE`], since the kernel must find it to probe it.
//! 5. Nobody usable in any tier: all healthy endpoints by weight, whatever their tier. Their circuits may still refuse.
//!
//! So someone has a slot whenever someone is in, health alone never makes a service unreachable, and one more usable
//! endpoint in the nearest tier never takes traffic away from that tier.

use super::{tier::Tier, warm_up::WARM};

/// Where several tiers share, healthy endpoints with open circuits get one in so many of all slots, together. Connects
/// that meet them there go on to another endpoint, until a circuit is due for a probe: without these slots nobody would
/// notice that an endpoint is back.
pub const TRICKLE: u64 = 1000;

/// The sum of weights over several tiers, before common divisors are taken out.
///
/// A multiple of the square of every number up to 16, of 7 and of [`TRICKLE`], so that the weights of a small service
/// are exact, and few slots hold them. All others are rounded to this many parts. Small enough for `datapath` to
/// multiply it by a number of slots.
const WHOLE: u128 = 720_720 * 720_720 * 35;

/// What a choice depends on, of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its share among the endpoints of its tier; 0: it is out (draining, tripped, or of weight 0).
    pub weight: u16,
    /// How near it is.
    pub tier: Tier,
    /// Whether health checks do not say that it is unhealthy.
    pub healthy: bool,
    /// Whether its circuit is not open.
    pub admits: bool,
    /// How much of its share it gets, in thousandths: 1 to 1000.
    pub warmth: u16,
}

/// Weights to lay slots out by, in the order of the candidates. Only proportions within one set mean something, but where
/// nothing is special (one tier; all healthy, warm, circuits closed) all three are the plain weights and equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// By all that is known.
    pub attended: Vec<u64>,
    /// Without what nobody keeps current while the daemon is away: health, circuits as it saw them, warmth.
    pub alone: Vec<u64>,
    /// Without locality, warmth and circuits: for where no endpoint of the others admits connections. Health counts, as it
    /// was known last.
    pub all: Vec<u64>,
    /// Whether health is ignored because nobody is healthy.
    pub panic: bool,
}

/// The weights of endpoints, while less than `spill_below` thousandths of a tier usable make the next one help out.
///
/// `spill_below` is taken as 1 to 1000, warmth likewise. A set sums up to less than 2^45 plus one for each candidate, or
/// to the plain weights.
#[must_use]
pub fn weigh(candidates: &[Candidate], spill_below: u32) -> Weights {
    let mut present = candidates.iter().filter(|c| c.weight > 0).peekable();
    let panic = present.peek().is_some() && present.all(|c| !c.healthy);
    let attended: Vec<Candidate> = candidates.iter().map(|c| Candidate { healthy: c.healthy || panic, ..*c }).collect();
    let at_best = |c: &Candidate| Candidate { healthy: true, admits: true, warmth: WARM, ..*c };
    let alone: Vec<Candidate> = candidates.iter().map(at_best).collect();
    Weights {
        attended: spread(&attended, spill_below),
        alone: spread(&alone, spill_below),
        all: attended.iter().map(|c| if c.healthy { u64::from(c.weight) } else { 0 }).collect(),
        panic,
    }
}

/// Rules 3 to 5.
fn spread(candidates: &[Candidate], spill_below: u32) -> Vec<u64> {
    let tiers = Tier::ALL.map(|tier| Group::new(candidates, tier));
    let parts = parts(&tiers, u128::from(spill_below.clamp(1, 1000)));
    let taken: u128 = parts.iter().flatten().sum();
    if taken == 0 {
        return candidates.iter().map(|c| if c.healthy { u64::from(c.weight) } else { 0 }).collect();
    }
    if let [Some(_)] = parts.iter().filter(|part| part.is_some()).collect::<Vec<_>>()[..] {
        let alone = |c: &Candidate| if parts[c.tier as usize].is_some() { tiers[c.tier as usize].within(c) } else { 0 };
        return candidates.iter().map(|c| u64::try_from(alone(c)).unwrap_or(u64::MAX)).collect();
    }
    let reached = || tiers.iter().zip(&parts).filter(|(_, part)| part.is_some());
    let open: u128 = reached().map(|(tier, _)| tier.plain - tier.usable).sum();
    let few = if open == 0 { 0 } else { WHOLE / u128::from(TRICKLE) };
    let weight = |c: &Candidate| {
        let group = &tiers[c.tier as usize];
        let Some(part) = parts[c.tier as usize].filter(|_| c.healthy && c.weight > 0) else { return 0 };
        // Whoever is in a tier that the spill has reached keeps a slot.
        let parts = if c.admits {
            part * (WHOLE - few) / taken * group.within(c) / group.sum
        } else {
            few * u128::from(c.weight) / open
        };
        parts.max(1)
    };
    let weights: Vec<u128> = candidates.iter().map(weight).collect();
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.into_iter().map(|weight| u64::try_from(weight / divisor).unwrap_or(u64::MAX)).collect()
}

/// What each tier takes, in parts of [`WHOLE`]; `None` where the spill does not reach it, or nobody in it is healthy. All
/// 0: nobody is usable.
fn parts(tiers: &[Group; Tier::COUNT], spill_below: u128) -> [Option<u128>; Tier::COUNT] {
    let mut left = WHOLE;
    let mut parts = [None; Tier::COUNT];
    for (part, tier) in parts.iter_mut().zip(tiers) {
        let (usable, enough) = (tier.usable * 1000, tier.all * spill_below);
        if left == 0 || tier.plain == 0 {
            continue;
        }
        let takes = if usable >= enough { left } else { left * usable / enough };
        *part = Some(takes);
        left -= takes;
    }
    parts
}

/// One tier.
struct Group {
    /// Weight of all endpoints that are in.
    all: u128,
    /// Weight of the healthy ones.
    plain: u128,
    /// Weight of the healthy ones whose circuit admits.
    usable: u128,
    /// Of the healthy ones' warmths the greatest common divisor: equal ones cancel out.
    divisor: u128,
    /// Sum of what is [`within`](Self::within), of the usable ones.
    sum: u128,
}

impl Group {
    fn new(candidates: &[Candidate], tier: Tier) -> Self {
        let mut group = Self { all: 0, plain: 0, usable: 0, divisor: 0, sum: 0 };
        for c in candidates.iter().filter(|c| c.tier == tier && c.weight > 0) {
            let weight = u128::from(c.weight);
            group.all += weight;
            if c.healthy {
                group.plain += weight;
                group.divisor = gcd(group.divisor, warmth(c));
                if c.admits {
                    group.usable += weight;
                    group.sum += weight * warmth(c);
                }
            }
        }
        group.divisor = group.divisor.max(1);
        group.sum /= group.divisor;
        group
    }

    /// What one of its candidates has, of the sum.
    fn within(&self, c: &Candidate) -> u128 {
        if c.healthy { u128::from(c.weight) * warmth(c) / self.divisor } else { 0 }
    }
}

fn warmth(c: &Candidate) -> u128 {
    u128::from(c.warmth.clamp(1, WARM))
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;

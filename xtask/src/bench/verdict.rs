//! What must hold, and whether it does.

use super::peers::Kind;
use super::rounds::{Sample, Series};
use super::scenario::Scenario;
use super::statistics::{Spread, ratios};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Cpu,
    P50,
    P99,
    /// MiB.
    Memory,
    Errors,
}

/// A limit of ours: a ratio to the best of some peers, or, against none, the figure itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// None: all that were measured.
    pub(super) scenario: Option<Scenario>,
    pub(super) figure: Figure,
    pub(super) against: &'static [Kind],
    pub(super) must: f64,
    /// What would be better still.
    pub(super) stretch: Option<f64>,
    /// Without CPUs kept awake the figure says how long it takes to wake one.
    pub(super) needs_spin: bool,
}

const fn cpu(scenario: Scenario, against: &'static [Kind], must: f64, stretch: Option<f64>) -> Bound {
    Bound { scenario: Some(scenario), figure: Figure::Cpu, against, must, stretch, needs_spin: false }
}

/// What docs/performance.md says must hold.
pub(super) const BOUNDS: [Bound; 14] = [
    cpu(Scenario::C64, &[Kind::Haproxy, Kind::Nginx], 1.00, None),
    cpu(Scenario::C64, &[Kind::Haproxy], 1.00, Some(0.85)),
    cpu(Scenario::C64, &[Kind::Envoy], 0.35, None),
    Bound { figure: Figure::P50, needs_spin: true, ..cpu(Scenario::C1, &[Kind::Haproxy], 1.00, Some(0.90)) },
    cpu(Scenario::C1, &[Kind::Haproxy], 0.90, None),
    cpu(Scenario::C1000, &[Kind::Nginx], 1.00, Some(0.75)),
    Bound { figure: Figure::P99, ..cpu(Scenario::C1000, &[Kind::Haproxy], 1.00, None) },
    cpu(Scenario::Close, &[Kind::Nginx], 1.20, Some(1.00)),
    cpu(Scenario::H2, &[Kind::Haproxy], 1.15, Some(1.00)),
    cpu(Scenario::H2, &[Kind::Envoy], 0.35, None),
    cpu(Scenario::Grpc, &[Kind::Haproxy], 0.90, Some(0.75)),
    cpu(Scenario::Big, &[Kind::Haproxy], 0.65, Some(0.55)),
    Bound { figure: Figure::Memory, ..cpu(Scenario::C1000, &[], 40.0, Some(25.0)) },
    Bound { scenario: None, figure: Figure::Errors, ..cpu(Scenario::C64, &[], 0.0, None) },
];

/// What became of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the stretch, if there is one.
    Stretched,
    Met,
    Missed,
    /// Nothing to compare with.
    Open,
}

/// A bound and what was measured.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) bound: Bound,
    pub(super) measured: Option<Spread>,
    pub(super) outcome: Outcome,
}

impl Verdict {
    /// Whether some rounds say the opposite: the noise is larger than the distance to the bound.
    pub(super) fn is_unsure(&self) -> bool {
        self.measured.is_some_and(|measured| measured.least <= self.bound.must && self.bound.must < measured.most)
    }
}

/// Every bound that these scenarios touch. `spun`: CPUs were kept awake.
pub(super) fn judge(series: &[Series], spun: bool) -> Vec<Verdict> {
    let measured = |bound: &Bound| bound.scenario.is_none_or(|own| series.iter().any(|one| one.scenario == own));
    let bounds = BOUNDS.iter().filter(|bound| measured(bound));
    bounds.map(|bound| decide(*bound, measure(bound, series), spun)).collect()
}

fn decide(bound: Bound, measured: Option<Spread>, spun: bool) -> Verdict {
    let outcome = match measured {
        None => Outcome::Open,
        Some(_) if bound.needs_spin && !spun => Outcome::Open,
        Some(spread) if bound.stretch.is_some_and(|stretch| spread.median <= stretch) => Outcome::Stretched,
        Some(spread) if spread.median <= bound.must => Outcome::Met,
        Some(_) => Outcome::Missed,
    };
    Verdict { bound, measured, outcome }
}

fn measure(bound: &Bound, series: &[Series]) -> Option<Spread> {
    let of = |kind: Kind| series.iter().filter(move |one| one.kind == kind);
    let Some(scenario) = bound.scenario else {
        let samples = of(Kind::Mesh).flat_map(|one| &one.rounds);
        // One error in one round is too many: no median.
        let errors: Vec<u64> = samples.map(|sample| sample.load.errors).collect();
        let total = errors.iter().sum::<u64>() as f64;
        return (!errors.is_empty()).then_some(Spread { median: total, least: total, most: total });
    };
    let figures = |kind: Kind| {
        let series = of(kind).find(|one| one.scenario == scenario)?;
        Some(series.rounds.iter().map(|sample| figure(bound.figure, scenario, sample)).collect::<Vec<_>>())
    };
    let ours = figures(Kind::Mesh)?;
    if bound.against.is_empty() {
        return Spread::of(ours);
    }
    let theirs: Option<Vec<_>> = bound.against.iter().map(|kind| figures(*kind)).collect();
    Spread::of(ratios(&ours, &theirs?))
}

/// None in a round that is void.
pub(super) fn figure(figure: Figure, scenario: Scenario, sample: &Sample) -> Option<f64> {
    match figure {
        Figure::Errors => Some(sample.load.errors as f64),
        _ if sample.is_void() => None,
        Figure::Cpu => sample.per_unit(scenario, sample.cpu.total()),
        Figure::P50 => sample.load.p50,
        Figure::P99 => sample.load.p99,
        Figure::Memory => Some(sample.memory),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::Load;
    use super::super::proc::Cpu;
    use super::*;

    /// One round for each given number of milliseconds of CPU for 1,000 requests.
    fn series(kind: Kind, scenario: Scenario, millis: &[f64], errors: u64) -> Series {
        let sample = |millis: &f64| Sample {
            load: Load { requests: 1000, errors, seconds: 1.0, p50: Some(50.0), p99: Some(90.0), ..Load::default() },
            cpu: Cpu { user: millis / 1000.0, system: 0.0 },
            memory: 30.0,
            ..Sample::default()
        };
        Series { scenario, kind, rounds: millis.iter().map(sample).collect() }
    }

    fn of(verdicts: &[Verdict], figure: Figure, against: &[Kind]) -> Verdict {
        verdicts.iter().find(|one| one.bound.figure == figure && one.bound.against == against).unwrap().clone()
    }

    #[test]
    fn a_bound_is_met_missed_or_open_by_the_median_of_ratios_within_rounds() {
        let all = [
            series(Kind::Mesh, Scenario::C64, &[9.0, 27.0, 11.0], 0),
            series(Kind::Haproxy, Scenario::C64, &[10.0, 30.0, 10.0], 0),
            series(Kind::Nginx, Scenario::C64, &[8.0, 40.0, 10.0], 0),
        ];
        let verdicts = judge(&all, false);
        let haproxy = of(&verdicts, Figure::Cpu, &[Kind::Haproxy]);
        assert_eq!((haproxy.outcome, haproxy.is_unsure()), (Outcome::Met, true));
        assert!((haproxy.measured.unwrap().median - 0.9).abs() < 1e-9);
        assert_eq!(of(&verdicts, Figure::Cpu, &[Kind::Haproxy, Kind::Nginx]).outcome, Outcome::Missed);
        assert_eq!(of(&verdicts, Figure::Cpu, &[Kind::Envoy]).outcome, Outcome::Open);
        assert_eq!(of(&verdicts, Figure::Errors, &[]).outcome, Outcome::Met);
        assert!(verdicts.iter().all(|one| one.bound.scenario.is_none_or(|own| own == Scenario::C64)));
    }

    #[test]
    fn latency_is_judged_only_where_cpus_were_kept_awake() {
        let all = [series(Kind::Mesh, Scenario::C1, &[8.0], 0), series(Kind::Haproxy, Scenario::C1, &[10.0], 0)];
        let p50 = |spun| of(&judge(&all, spun), Figure::P50, &[Kind::Haproxy]).outcome;
        assert_eq!((p50(false), p50(true)), (Outcome::Open, Outcome::Met));
    }

    #[test]
    fn a_peer_that_fails_is_no_measure_and_our_own_errors_are_a_miss() {
        let all = [series(Kind::Mesh, Scenario::Grpc, &[8.0], 1), series(Kind::Haproxy, Scenario::Grpc, &[1.0], 500)];
        let verdicts = judge(&all, true);
        assert_eq!(of(&verdicts, Figure::Cpu, &[Kind::Haproxy]).outcome, Outcome::Open);
        assert_eq!(of(&verdicts, Figure::Errors, &[]).outcome, Outcome::Missed);
    }

    #[test]
    fn memory_is_an_absolute_bound() {
        let verdicts = judge(&[series(Kind::Mesh, Scenario::C1000, &[8.0, 9.0], 0)], true);
        assert_eq!(of(&verdicts, Figure::Memory, &[]).outcome, Outcome::Met);
    }
}

//! Tables for people, and JSON for programs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::peers::{self, Kind};
use super::rounds::{Plan, Sample, Series};
use super::scenario::Scenario;
use super::statistics::Spread;
use super::verdict::{Figure, Outcome, Verdict, figure};

/// On what was measured, and whom.
pub(super) fn setting(programs: &[(Kind, PathBuf)]) -> String {
    let proxies = programs.iter().filter(|(kind, _)| *kind != Kind::Direct);
    let lines = proxies.map(|(kind, program)| format!("  {:<8} {}\n", kind.name(), peers::version(*kind, program)));
    format!("\nLinux {}, {} CPUs\n{}", peers::kernel(), cpus(), lines.collect::<String>())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// One table a scenario: medians over the rounds, and for the CPU the least and the most.
pub(super) fn scenarios(series: &[Series]) -> String {
    let mut text = String::new();
    for scenario in Scenario::ALL {
        let own: Vec<&Series> = series.iter().filter(|one| one.scenario == scenario).collect();
        if own.is_empty() {
            continue;
        }
        let (rate, unit) = if scenario.by_size() { ("MiB/s", "GiB") } else { ("requests/s", "1k") };
        let mut rows = vec![
            [
                "peer",
                rate,
                "p50 µs",
                "p99 µs",
                &format!("CPU ms/{unit}"),
                "min–max",
                &format!("path ms/{unit}"),
                "MiB",
                "errors",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        rows.extend(own.iter().map(|one| row(one)));
        text.push_str(&format!("\n{}: {}\n\n{}", scenario.name(), scenario.title(), table(&rows)));
    }
    text
}

fn row(series: &Series) -> Vec<String> {
    let scenario = series.scenario;
    let spread = |of: &dyn Fn(&Sample) -> Option<f64>| Spread::of(series.rounds.iter().map(of));
    let median =
        |decimals: usize, of: &dyn Fn(&Sample) -> Option<f64>| number(spread(of).map(|one| one.median), decimals);
    let is_proxy = series.kind != Kind::Direct;
    let cpu = spread(&|sample| sample.per_unit(scenario, sample.cpu.total())).filter(|_| is_proxy);
    let errors: u64 = series.rounds.iter().map(|sample| sample.load.errors).sum();
    let void = if series.rounds.iter().any(Sample::is_void) { " (void)" } else { "" };
    vec![
        series.kind.name().to_owned(),
        median(0, &|sample| Some(rate(scenario, sample))),
        median(0, &|sample| sample.load.p50),
        median(0, &|sample| sample.load.p99),
        number(cpu.map(|one| one.median), 1),
        cpu.map_or("-".into(), |one| format!("{:.1}–{:.1}", one.least, one.most)),
        median(1, &|sample| sample.per_unit(scenario, sample.path)),
        if is_proxy { median(1, &|sample| Some(sample.memory)) } else { "-".into() },
        format!("{errors}{void}"),
    ]
}

fn rate(scenario: Scenario, sample: &Sample) -> f64 {
    let amount = if scenario.by_size() { sample.load.bytes / 1_048_576.0 } else { sample.load.requests as f64 };
    if sample.load.seconds > 0.0 { amount / sample.load.seconds } else { 0.0 }
}

/// What must hold, and whether it does.
pub(super) fn verdicts(verdicts: &[Verdict]) -> String {
    let mut rows = vec![["scenario", "what", "bound", "measured", "min–max", "verdict"].map(str::to_owned).to_vec()];
    rows.extend(verdicts.iter().map(|one| {
        let against: Vec<&str> = one.bound.against.iter().map(|kind| kind.name()).collect();
        let stretch = one.bound.stretch.map_or(String::new(), |stretch| format!(" (better: {stretch})"));
        let digits = if against.is_empty() { 0 } else { 2 };
        vec![
            one.bound.scenario.map_or("all", Scenario::name).to_owned(),
            what(one.bound.figure, &against),
            format!("≤ {:.digits$}{stretch}", one.bound.must),
            number(one.measured.map(|spread| spread.median), digits),
            one.measured.map_or("-".into(), |spread| format!("{:.digits$}–{:.digits$}", spread.least, spread.most)),
            format!("{}{}", outcome(one), if one.is_unsure() { ", within the noise" } else { "" }),
        ]
    }));
    format!("\nWhat must hold, as ratios within rounds\n\n{}", table(&rows))
}

fn what(figure: Figure, against: &[&str]) -> String {
    let name = match figure {
        Figure::Cpu => "CPU",
        Figure::P50 => "p50",
        Figure::P99 => "p99",
        Figure::Memory => "MiB",
        Figure::Errors => "errors",
    };
    match against {
        [] => name.to_owned(),
        [one] => format!("{name} / {one}"),
        all => format!("{name} / best of {}", all.join(", ")),
    }
}

fn outcome(verdict: &Verdict) -> &'static str {
    match verdict.outcome {
        Outcome::Stretched => "met, and better",
        Outcome::Met => "met",
        Outcome::Missed => "MISSED",
        Outcome::Open if verdict.measured.is_some() => "open: needs --spin",
        Outcome::Open => "open: nothing to compare with",
    }
}

/// How much the machine moved: an unchanged peer's CPU over the rounds, and what others took.
pub(super) fn noise(series: &[Series]) -> String {
    let all = || series.iter().flat_map(|one| &one.rounds);
    let moved = series.iter().filter(|one| !matches!(one.kind, Kind::Direct | Kind::Mesh)).filter_map(|one| {
        let cpu = Spread::of(one.rounds.iter().map(|sample| figure(Figure::Cpu, one.scenario, sample)))?;
        Some((cpu.most - cpu.least) / cpu.median * 100.0)
    });
    let most =
        |of: &dyn Fn(&Sample) -> f64| Spread::of(all().map(|sample| Some(of(sample)))).map_or(0.0, |one| one.most);
    format!(
        "\nNoise: from round to round the CPU of an unchanged peer moved by up to {:.0} % of its median; others used up to\n\
         {:.2} CPUs meanwhile, and the host took away up to {:.2}.\n",
        moved.fold(0.0, f64::max),
        most(&|sample| sample.others),
        most(&|sample| sample.steal)
    )
}

/// All that was measured, by round.
pub(super) fn json(plan: Plan, spun: bool, series: &[Series], verdicts: &[Verdict], calls: &[Value]) -> Value {
    let round = |scenario: Scenario, sample: &Sample| {
        json!({
            "requests": sample.load.requests, "errors": sample.load.errors, "seconds": sample.load.seconds,
            "bytes": sample.load.bytes, "p50_us": sample.load.p50, "p99_us": sample.load.p99,
            "user_s": sample.cpu.user, "system_s": sample.cpu.system, "path_s": sample.path,
            "cpu_ms": sample.per_unit(scenario, sample.cpu.total()), "memory_mib": sample.memory,
            "others_cpus": sample.others, "steal_cpus": sample.steal,
        })
    };
    let series = series.iter().map(|one| {
        let rounds: Vec<Value> = one.rounds.iter().map(|sample| round(one.scenario, sample)).collect();
        json!({ "scenario": one.scenario.name(), "peer": one.kind.name(), "rounds": rounds })
    });
    let verdicts = verdicts.iter().map(|one| {
        let against: Vec<&str> = one.bound.against.iter().map(|kind| kind.name()).collect();
        json!({
            "scenario": one.bound.scenario.map(Scenario::name), "what": what(one.bound.figure, &against),
            "bound": one.bound.must, "stretch": one.bound.stretch, "measured": one.measured.map(|spread| spread.median),
            "least": one.measured.map(|spread| spread.least), "most": one.measured.map(|spread| spread.most),
            "verdict": outcome(one),
        })
    });
    json!({
        "kernel": peers::kernel(), "cpus": cpus(),
        "rounds": plan.rounds, "seconds": plan.seconds, "spin": spun,
        "series": series.collect::<Vec<_>>(), "verdicts": verdicts.collect::<Vec<_>>(), "system_calls": calls,
    })
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.decimals$}"))
}

/// In columns, as Markdown; the first row is the head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    });
    let rule = format!("|{}|\n", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
    let head = lines.next().unwrap_or_default();
    format!("{head}{rule}{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_also_with_letters_that_are_not_ascii() {
        let rows = [["µs", "b"], ["100", "c"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "| µs  | b |\n|-----|---|\n| 100 | c |\n");
    }
}

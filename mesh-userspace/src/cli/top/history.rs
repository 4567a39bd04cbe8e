//! The last minute of something that has a rate.

use std::time::Duration;

/// What of a minute one cell stands for.
const CELL: Duration = Duration::from_secs(3);
/// Cells of a minute.
pub(super) const CELLS: usize = 20;

/// How much there was in each cell of the last minute, and for how much of the cell that is known.
///
/// Times are since a start that all calls share. Cells stand still on that clock, so that a line made of them moves to
/// the left cell by cell and does not flicker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Minute {
    /// The number of the newest cell, the first of all times being 0.
    newest: u64,
    /// By number, modulo their count: amount and seconds.
    cells: [(f32, f32); CELLS],
}

impl Minute {
    /// Between `from` and `to` there was so much a second.
    #[expect(clippy::cast_possible_truncation, reason = "a bar has eight heights")]
    pub(super) fn record(&mut self, from: Duration, to: Duration, rate: f64) {
        let mut from = from.max(to.saturating_sub(CELL * (CELLS as u32)));
        while from < to {
            let number = cell(from);
            let end = end(number).min(to);
            let seconds = (end - from).as_secs_f64();
            self.turn_to(number);
            let (amount, known) = &mut self.cells[index(number)];
            *amount += (rate * seconds) as f32;
            *known += seconds as f32;
            from = end;
        }
    }

    fn turn_to(&mut self, number: u64) {
        let skipped = number.saturating_sub(self.newest).min(CELLS as u64);
        for back in 0..skipped {
            self.cells[index(number - back)] = (0.0, 0.0);
        }
        self.newest = self.newest.max(number);
    }

    /// The minute before `now` as a line of bars, `cells` long at most, the highest of them full: blank where nothing is
    /// known, the lowest bar where there was nothing.
    pub(super) fn line(&self, now: Duration, cells: usize) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let rates = self.rates(now, CELLS.div_ceil(cells.clamp(1, CELLS)) as u64);
        let highest = rates.iter().flatten().fold(0.0_f32, |highest, rate| highest.max(*rate));
        let bar = |rate: &Option<f32>| match *rate {
            None => ' ',
            Some(rate) if rate > 0.0 => BARS[height(rate / highest, BARS.len())],
            Some(_) => BARS[0],
        };
        rates.iter().map(bar).collect()
    }

    /// The mean rate of each group of so many cells, the oldest first; `None` where it is not known.
    fn rates(&self, now: Duration, group: u64) -> Vec<Option<f32>> {
        let newest = cell(now);
        let groups = CELLS as u64 / group;
        let last = newest / group;
        let first = (last + 1).saturating_sub(groups);
        let before_all = groups - (last + 1 - first);
        let mut rates = vec![None; usize::try_from(before_all).unwrap_or_default()];
        for number in first..=last {
            let cells = number * group..(number + 1) * group;
            let known = cells.filter(|cell| *cell <= self.newest && *cell + CELLS as u64 > self.newest.max(newest));
            let sums = known.map(|cell| self.cells[index(cell)]);
            let (amount, seconds) = sums.fold((0.0, 0.0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
            rates.push((seconds > 0.0).then(|| amount / seconds));
        }
        rates
    }
}

/// The bar for this part of the highest one: never the lowest, which stands for nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 1 times a few bars")]
fn height(part: f32, bars: usize) -> usize {
    let above = bars - 1;
    ((part * above as f32).ceil() as usize).clamp(1, above)
}

fn cell(at: Duration) -> u64 {
    at.as_secs() / CELL.as_secs()
}

fn end(cell: u64) -> Duration {
    Duration::from_secs((cell + 1) * CELL.as_secs())
}

fn index(cell: u64) -> usize {
    usize::try_from(cell % CELLS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn every_three_seconds_are_a_bar_and_what_is_not_known_is_blank() {
        let mut minute = Minute::default();
        assert_eq!(minute.line(seconds(0), CELLS), " ".repeat(20));
        for second in 0..9 {
            minute.record(seconds(second), seconds(second + 1), [0.0, 5.0, 70.0][(second / 3) as usize]);
        }
        assert_eq!(minute.line(seconds(8), CELLS).trim_start(), "▁▂█");
        assert_eq!(minute.line(seconds(11), CELLS).trim_start(), "▁▂█ ", "nothing is known yet of the cell of now");
        assert_eq!(minute.line(seconds(8), CELLS).chars().count(), 20);
    }

    #[test]
    fn a_long_look_fills_all_the_time_that_it_covers() {
        let mut minute = Minute::default();
        minute.record(seconds(0), seconds(30), 5.0);
        assert_eq!(minute.line(seconds(29), CELLS), format!("{}{}", " ".repeat(10), "█".repeat(10)));
        minute.record(seconds(30), seconds(600), 1.0);
        assert_eq!(minute.line(seconds(599), CELLS), "█".repeat(20), "what is older than a minute is gone");
        assert_eq!(minute.line(seconds(700), CELLS), " ".repeat(20));
    }

    #[test]
    fn a_shorter_line_shows_means() {
        let mut minute = Minute::default();
        minute.record(seconds(0), seconds(3), 0.0);
        minute.record(seconds(3), seconds(6), 2.0);
        minute.record(seconds(6), seconds(12), 14.0);
        assert_eq!(minute.line(seconds(11), 10), format!("{}▂█", " ".repeat(8)));
    }

    #[test]
    fn what_is_little_is_not_nothing() {
        let mut minute = Minute::default();
        minute.record(seconds(0), seconds(3), 0.000_1);
        minute.record(seconds(3), seconds(6), 1e12);
        assert_eq!(minute.line(seconds(5), CELLS).trim_start(), "▂█");
    }

    proptest! {
        #[test]
        fn no_look_is_a_panic(looks in prop::collection::vec((0u64..1000, 0u64..1000, 0.0f64..1e300), 0..20), width in 0usize..50) {
            let mut minute = Minute::default();
            for (from, to, rate) in looks {
                minute.record(Duration::from_millis(from * 77), Duration::from_millis(to * 77), rate);
                prop_assert!(minute.line(Duration::from_millis(to * 77), width).chars().count() <= CELLS);
            }
        }
    }
}

//! Metrics as Prometheus text, family by family, handed over in pieces while it is written.
//!
//! The encoder of the `prometheus` crate wants every metric as a tree of its own and formats a histogram's labels anew for each of
//! its buckets: a quarter of a second for 10,000 endpoints in use, which print 600,000 lines. Here a metric is the values of its
//! labels and its number, written where they are to be: what stands around them is the same in all metrics of a family, and made
//! once. Tests hold the text against that encoder's.

use prometheus::{
    Encoder, TextEncoder,
    proto::{MetricFamily, MetricType},
};
use std::{io::Write, ops::ControlFlow};

/// Room for a piece. mimalloc gives the memory of a piece that was sent, and freed by another thread, to one of the next; of
/// pieces of 256 KiB it fills a whole segment of 32 MiB first.
const PIECE: usize = 64 << 10;
/// What may be left of it: more than a metric takes, if its labels are not uncommonly long. Else the piece grows.
const SPARE: usize = 8 << 10;

/// Takes the text, piece by piece, and says whether it wants more.
pub type Sink<'a> = &'a mut dyn FnMut(Vec<u8>) -> ControlFlow<()>;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Name, help, and kind of a family.
pub(super) type Head<'a> = (&'a str, &'a str, Kind);

/// A family of metrics: what is the same in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it says.
    pub help: String,
    /// Whether it has a metric at the moment: one that has none is not printed.
    pub is_printed: bool,
}

/// The upper bounds of a histogram's buckets as they are printed, each with what stands between it and the number.
pub(super) struct Bounds(Vec<String>);

impl Bounds {
    /// `microseconds`: ascending; they are printed as seconds. The last bucket has no bound.
    pub(super) fn new(microseconds: impl Iterator<Item = u64>) -> Self {
        let bounds = microseconds.map(|us| format!("{}\"}} ", us as f64 / 1e6));
        Self(bounds.chain(["+Inf\"} ".to_owned()]).collect())
    }
}

/// Families that the `prometheus` crate collected, as text. Apart, since this can fail: it is made before anything is handed over.
pub(super) struct Collected {
    bytes: Vec<u8>,
    families: Vec<Family>,
}

impl Collected {
    /// # Errors
    /// The crate's: its names are malformed.
    pub(super) fn new(collected: Vec<MetricFamily>) -> Result<Self, prometheus::Error> {
        let mut bytes = Vec::new();
        let mut families = Vec::with_capacity(collected.len());
        for family in collected {
            let kind = if family.get_field_type() == MetricType::COUNTER { Kind::Counter } else { Kind::Gauge };
            let labels = family.get_metric().first().map(|metric| metric.get_label()).unwrap_or_default();
            families.push(Family {
                name: family.name().to_owned(),
                kind: kind.word(),
                labels: labels.iter().map(|label| label.name().to_owned()).collect(),
                help: family.help().to_owned(),
                is_printed: !family.get_metric().is_empty(),
            });
            if !family.get_metric().is_empty() {
                TextEncoder::new().encode(&[family], &mut bytes)?;
            }
        }
        Ok(Self { bytes, families })
    }
}

/// The text so far.
pub(super) struct Text<'a> {
    piece: Vec<u8>,
    sink: Sink<'a>,
    is_wanted: bool,
    /// Whether the family that is being written has a metric.
    has_metric: bool,
    /// What was asked for so far.
    families: Vec<Family>,
}

impl<'a> Text<'a> {
    /// Nothing yet.
    pub(super) fn new(sink: Sink<'a>) -> Self {
        Self { piece: Vec::with_capacity(PIECE), sink, is_wanted: true, has_metric: false, families: Vec::new() }
    }

    /// Hands over what is left, and says what was asked for.
    pub(super) fn finish(mut self) -> Vec<Family> {
        if !self.piece.is_empty() {
            self.hand_over();
        }
        self.families
    }

    /// Adds families that were collected.
    pub(super) fn add_collected(&mut self, collected: Collected) {
        self.piece.extend_from_slice(&collected.bytes);
        self.families.extend(collected.families);
    }

    /// Adds a family of counters or gauges; one without metrics takes no line.
    pub(super) fn family<const N: usize>(
        &mut self,
        (name, help, kind): Head<'_>,
        labels: [&str; N],
        tell: impl FnOnce(&mut Metrics<'_, 'a, N>),
    ) {
        self.open(name, help, kind.word(), &labels, |text| tell(&mut Metrics { line: Line::new(name, &labels), text }));
    }

    /// Adds a family of one metric without labels, or of none.
    pub(super) fn one(&mut self, head: Head<'_>, value: impl Into<Option<u64>>) {
        self.family(head, [], |metrics| {
            if let Some(value) = value.into() {
                metrics.whole([], value);
            }
        });
    }

    /// Adds a family of histograms in seconds, whose buckets have these bounds; one without metrics takes no line.
    pub(super) fn histograms<const N: usize>(
        &mut self,
        (name, help): (&str, &str),
        labels: [&str; N],
        bounds: &Bounds,
        tell: impl FnOnce(&mut Histograms<'_, 'a, N>),
    ) {
        let bucket = Line::new(&format!("{name}_bucket"), &[&labels[..], &["le"]].concat());
        let [sum, count] = ["sum", "count"].map(|part| Line::new(&format!("{name}_{part}"), &labels));
        self.open(name, help, "histogram", &labels, |text| {
            tell(&mut Histograms { bucket, sum, count, bounds, start: Vec::new(), text });
        });
    }

    fn open(&mut self, name: &str, help: &str, kind: &'static str, labels: &[&str], tell: impl FnOnce(&mut Self)) {
        if !self.is_wanted {
            return;
        }
        let before = self.piece.len();
        self.add(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"]);
        self.has_metric = false;
        tell(self);
        if !self.has_metric {
            // It is where it was: only the end of a metric hands something over.
            self.piece.truncate(before);
        }
        self.families.push(Family {
            name: name.to_owned(),
            kind,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            help: help.to_owned(),
            is_printed: self.has_metric,
        });
    }

    fn add(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.piece.extend_from_slice(word.as_bytes()));
    }

    fn whole(&mut self, value: u64) {
        self.add(&[itoa::Buffer::new().format(value), "\n"]);
    }

    fn number(&mut self, value: f64) {
        // A vector takes every byte.
        let _ = writeln!(self.piece, "{value}");
    }

    fn end_metric(&mut self) {
        self.has_metric = true;
        if self.piece.len() > PIECE - SPARE {
            self.hand_over();
            self.piece.reserve_exact(PIECE);
        }
    }

    fn hand_over(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        // Whoever has enough is not asked again: what the family at hand still adds goes nowhere.
        self.is_wanted = self.is_wanted && (self.sink)(piece).is_continue();
    }
}

/// A family of counters or gauges, open for its metrics.
pub(super) struct Metrics<'t, 'a, const N: usize> {
    line: Line,
    text: &'t mut Text<'a>,
}

impl<const N: usize> Metrics<'_, '_, N> {
    /// Adds the metric whose labels have these values.
    pub(super) fn whole(&mut self, labels: [&str; N], value: u64) {
        self.line.begin(labels, &mut self.text.piece);
        self.text.whole(value);
        self.text.end_metric();
    }

    /// Adds one that need not be whole.
    pub(super) fn number(&mut self, labels: [&str; N], value: f64) {
        self.line.begin(labels, &mut self.text.piece);
        self.text.number(value);
        self.text.end_metric();
    }
}

/// A family of histograms, open for its metrics.
pub(super) struct Histograms<'t, 'a, const N: usize> {
    bucket: Line,
    sum: Line,
    count: Line,
    bounds: &'t Bounds,
    /// What all buckets of a metric begin with.
    start: Vec<u8>,
    text: &'t mut Text<'a>,
}

impl<const N: usize> Histograms<'_, '_, N> {
    /// Adds the metric whose labels have these values. `counts`: of each bucket without those below it; `sum`: in seconds.
    pub(super) fn add(&mut self, labels: [&str; N], counts: &[u64], sum: f64) {
        debug_assert_eq!(self.bounds.0.len(), counts.len());
        self.start.clear();
        self.bucket.begin(labels, &mut self.start);
        let mut below = 0;
        for (bound, count) in self.bounds.0.iter().zip(counts) {
            below += count;
            self.text.piece.extend_from_slice(&self.start);
            self.text.add(&[bound]);
            self.text.whole(below);
        }
        self.sum.begin(labels, &mut self.text.piece);
        self.text.number(sum);
        self.count.begin(labels, &mut self.text.piece);
        self.text.whole(below);
        self.text.end_metric();
    }
}

/// What stands around the values of labels in each line of a family.
struct Line {
    /// `name{first="`, or `name ` where there are no labels.
    start: String,
    /// Behind each value: `",next="`, and `"} ` behind the last.
    behind: Vec<String>,
}

impl Line {
    fn new(name: &str, labels: &[&str]) -> Self {
        let Some((first, others)) = labels.split_first() else {
            return Self { start: format!("{name} "), behind: Vec::new() };
        };
        let behind = others.iter().map(|next| format!("\",{next}=\"")).chain(["\"} ".to_owned()]).collect();
        Self { start: format!("{name}{{{first}=\""), behind }
    }

    /// Writes a line up to its number; where there are more labels than values, up to the next value.
    fn begin<const N: usize>(&self, values: [&str; N], to: &mut Vec<u8>) {
        to.extend_from_slice(self.start.as_bytes());
        for (value, behind) in values.into_iter().zip(&self.behind) {
            add_escaped(value, to);
            to.extend_from_slice(behind.as_bytes());
        }
    }
}

fn add_escaped(value: &str, to: &mut Vec<u8>) {
    let is_special = |byte| matches!(byte, b'\\' | b'"' | b'\n');
    // All bytes are looked at, many at a time: names and addresses have none of these.
    if !value.bytes().fold(false, |any, byte| any | is_special(byte)) {
        return to.extend_from_slice(value.as_bytes());
    }
    for byte in value.bytes() {
        match byte {
            b'\n' => to.extend_from_slice(br"\n"),
            byte if is_special(byte) => to.extend_from_slice(&[b'\\', byte]),
            byte => to.push(byte),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use prometheus::proto::{self, LabelPair};
    use proptest::{collection::vec, prelude::*};

    const BOUNDS_US: [u64; 3] = [16, 1_000, 2_097_152];

    /// What is written, as one text.
    pub(in super::super) fn whole_text(write: impl FnOnce(&mut Text<'_>)) -> String {
        let mut all = Vec::new();
        let mut sink = |piece: Vec<u8>| {
            all.extend(piece);
            ControlFlow::Continue(())
        };
        let mut text = Text::new(&mut sink);
        write(&mut text);
        text.finish();
        String::from_utf8(all).unwrap()
    }

    /// What the encoder of the `prometheus` crate makes of the same.
    fn encoded(kind: MetricType, labels: &[(&str, &str)], fill: impl FnOnce(&mut proto::Metric)) -> String {
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = proto::Metric::from_label(pairs.collect());
        fill(&mut metric);
        let mut family = MetricFamily::default();
        family.set_name("name".to_owned());
        family.set_help("Help.".to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        whole_text(|text| text.add_collected(Collected::new(vec![family]).unwrap()))
    }

    /// Holds a counter, a gauge and a histogram with these labels against that encoder.
    fn is_that_of_the_crate<const N: usize>(
        labels: [(&str, &str); N],
        count: u64,
        part: f64,
        counts: &[u64],
    ) -> Result<(), TestCaseError> {
        let (names, values) = (labels.map(|(name, _)| name), labels.map(|(_, value)| value));
        let counter = encoded(MetricType::COUNTER, &labels, |metric| {
            let mut counter = proto::Counter::default();
            counter.set_value(count as f64);
            metric.set_counter(counter);
        });
        let head = |kind| ("name", "Help.", kind);
        let written = whole_text(|text| text.family(head(Kind::Counter), names, |m| m.whole(values, count)));
        prop_assert_eq!(written, counter);
        let gauge = encoded(MetricType::GAUGE, &labels, |metric| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(part);
            metric.set_gauge(gauge);
        });
        let written = whole_text(|text| text.family(head(Kind::Gauge), names, |m| m.number(values, part)));
        prop_assert_eq!(written, gauge);
        let measured = encoded(MetricType::HISTOGRAM, &labels, |metric| {
            let mut histogram = proto::Histogram::default();
            let mut below = 0;
            let buckets = BOUNDS_US.iter().zip(counts).map(|(us, count)| {
                below += count;
                let mut bucket = proto::Bucket::default();
                bucket.set_cumulative_count(below);
                bucket.set_upper_bound(*us as f64 / 1e6);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(counts.iter().sum());
            histogram.set_sample_sum(part);
            metric.set_histogram(histogram);
        });
        let bounds = Bounds::new(BOUNDS_US.into_iter());
        let written =
            whole_text(|text| text.histograms(("name", "Help."), names, &bounds, |h| h.add(values, counts, part)));
        prop_assert_eq!(written, measured);
        Ok(())
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_crate(
            [a, b] in ["(?s).{0,40}|[\\\\\"\n]{1,4}", "(?s).{0,8}|[\\\\\"\n]{1,4}"], count in 0..1_u64 << 53,
            part in any::<f64>(), counts in vec(0..1_u64 << 50, BOUNDS_US.len() + 1),
        ) {
            is_that_of_the_crate([], count, part, &counts)?;
            is_that_of_the_crate([("a", &a)], count, part, &counts)?;
            is_that_of_the_crate([("a", &a), ("b", &b)], count, part, &counts)?;
        }
    }

    #[test]
    fn a_family_of_many_is_one_family_and_one_of_none_is_not_there() {
        let text = whole_text(|text| {
            text.one(("none", "None.", Kind::Gauge), None);
            text.family(("many_total", "Many.", Kind::Counter), ["n"], |metrics| {
                (0..3).for_each(|n| metrics.whole([&n.to_string()], u64::MAX));
            });
            text.family(("no_more", "None.", Kind::Gauge), ["n"], |_| ());
        });
        let expected = "# HELP many_total Many.\n# TYPE many_total counter\nmany_total{n=\"0\"} 18446744073709551615\n\
            many_total{n=\"1\"} 18446744073709551615\nmany_total{n=\"2\"} 18446744073709551615\n";
        assert_eq!(text, expected);
    }

    /// Some 2 MiB.
    fn many(text: &mut Text<'_>) {
        let bounds = Bounds::new(BOUNDS_US.into_iter());
        for name in ["one", "two"] {
            text.family((name, "Many.", Kind::Counter), ["n"], |metrics| {
                (0..50_000).for_each(|n| metrics.whole([&n.to_string()], n));
            });
        }
        text.histograms(("times", "Many."), ["n"], &bounds, |histograms| {
            (0..3_000).for_each(|n| histograms.add([&n.to_string()], &[n, 1, 2, 3], 0.5));
        });
    }

    #[test]
    fn what_is_long_comes_in_pieces_of_whole_metrics_that_fit_where_there_is_room() {
        let mut pieces = Vec::new();
        let mut sink = |piece: Vec<u8>| {
            pieces.push(piece);
            ControlFlow::Continue(())
        };
        let mut text = Text::new(&mut sink);
        many(&mut text);
        text.finish();
        assert!(pieces.len() > 4, "{}", pieces.len());
        for piece in &pieces {
            assert!(piece.ends_with(b"\n") && piece.len() <= PIECE && piece.capacity() == PIECE, "{}", piece.len());
        }
        assert_eq!(String::from_utf8(pieces.concat()).unwrap(), whole_text(many));
        let metric = "times_bucket{n=\"7\",le=\"0.000016\"} 7\ntimes_bucket{n=\"7\",le=\"0.001\"} 8\n\
            times_bucket{n=\"7\",le=\"2.097152\"} 10\ntimes_bucket{n=\"7\",le=\"+Inf\"} 13\ntimes_sum{n=\"7\"} 0.5\n\
            times_count{n=\"7\"} 13\n";
        assert!(whole_text(many).contains(metric));
    }

    #[test]
    fn whoever_has_enough_is_not_asked_again() {
        let mut pieces = 0;
        let mut sink = |_| {
            pieces += 1;
            if pieces == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut text = Text::new(&mut sink);
        many(&mut text);
        text.finish();
        assert_eq!(pieces, 2);
    }
}

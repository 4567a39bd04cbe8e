//! Metrics as Prometheus text, family by family.
//!
//! The encoder of the `prometheus` crate wants every metric as a tree of its own and formats a histogram's labels anew for each of
//! its buckets: a quarter of a second for 10,000 endpoints in use, which print 600,000 lines. Here a metric is its labels, written
//! once, and what is the same in all metrics of a family is made once. Tests hold the text against that encoder's.

use prometheus::{
    Encoder, TextEncoder,
    proto::{MetricFamily, MetricType},
};
use std::io::Write;

/// No metric has more labels.
const MOST_LABELS: usize = 3;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Cumulative buckets, sum and count.
    Histogram,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Name, help, and kind of a family.
pub(super) type Head<'a> = (&'a str, &'a str, Kind);

/// A metric of a family.
pub(super) struct Metric<'a> {
    /// The names of its labels; `""`: no more.
    names: [&'static str; MOST_LABELS],
    /// `a="1",b="2"`, escaped.
    labels: Vec<u8>,
    value: Value<'a>,
}

enum Value<'a> {
    Whole(u64),
    Number(f64),
    Histogram(&'a Bounds, Vec<u64>, f64),
}

/// The upper bounds of a histogram's buckets, in seconds, as they are printed; the last bucket has none.
pub(super) struct Bounds(Vec<String>);

impl Bounds {
    /// `microseconds`: ascending.
    pub(super) fn new(microseconds: impl Iterator<Item = u64>) -> Self {
        Self(microseconds.map(|us| (us as f64 / 1e6).to_string()).chain(std::iter::once("+Inf".to_owned())).collect())
    }
}

/// A family of metrics: what is the same in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels. Empty also where it has no metric at the moment.
    pub labels: Vec<String>,
    /// What it says.
    pub help: String,
    /// Whether it has a metric at the moment: one that has none is not printed.
    pub is_printed: bool,
}

/// The text so far, and which families were asked for.
#[derive(Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    pub(super) families: Vec<Family>,
}

impl Text {
    /// Adds a family that the `prometheus` crate collected.
    ///
    /// # Errors
    /// The crate's: its names are malformed.
    pub(super) fn collected(&mut self, family: MetricFamily) -> Result<(), prometheus::Error> {
        let kind = if family.get_field_type() == MetricType::COUNTER { Kind::Counter } else { Kind::Gauge };
        let first = family.get_metric().first();
        let labels = first.map(|metric| metric.get_label().iter().map(|label| label.name().to_owned()).collect());
        self.note((family.name(), family.help(), kind), labels);
        if family.get_metric().is_empty() { Ok(()) } else { TextEncoder::new().encode(&[family], &mut self.bytes) }
    }

    /// `labels`: their names, where there is a metric.
    fn note(&mut self, (name, help, kind): Head<'_>, labels: Option<Vec<String>>) {
        let (is_printed, labels) = (labels.is_some(), labels.unwrap_or_default());
        let (name, help) = (name.to_owned(), help.to_owned());
        self.families.push(Family { name, kind: kind.word(), labels, help, is_printed });
    }

    /// Adds a family; one without metrics takes no line.
    pub(super) fn family<'a>(&mut self, (name, help, kind): Head<'_>, metrics: impl IntoIterator<Item = Metric<'a>>) {
        let mut metrics = metrics.into_iter().peekable();
        let names = metrics.peek().map(|first| first.names);
        let labels = names.map(|names| names.into_iter().filter(|n| !n.is_empty()).map(str::to_owned).collect());
        self.note((name, help, kind), labels);
        if names.is_none() {
            return;
        }
        self.add(&["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind.word(), "\n"]);
        let mut start = Vec::new();
        for Metric { names: _, labels, value } in metrics {
            match value {
                Value::Whole(value) => {
                    self.named(name, "", &labels);
                    self.whole(value);
                }
                Value::Number(value) => {
                    self.named(name, "", &labels);
                    self.number(value);
                }
                Value::Histogram(bounds, counts, sum) => {
                    start.clear();
                    start.extend_from_slice(name.as_bytes());
                    start.extend_from_slice(b"_bucket{");
                    start.extend_from_slice(&labels);
                    start.extend_from_slice(if labels.is_empty() { b"le=\"" } else { b",le=\"" });
                    let mut below = 0;
                    for (bound, count) in bounds.0.iter().zip(counts) {
                        below += count;
                        self.bytes.extend_from_slice(&start);
                        self.add(&[bound, "\"} "]);
                        self.whole(below);
                    }
                    self.named(name, "_sum", &labels);
                    self.number(sum);
                    self.named(name, "_count", &labels);
                    self.whole(below);
                }
            }
        }
    }

    fn add(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.bytes.extend_from_slice(word.as_bytes()));
    }

    fn named(&mut self, name: &str, suffix: &str, labels: &[u8]) {
        self.add(&[name, suffix]);
        if !labels.is_empty() {
            self.bytes.push(b'{');
            self.bytes.extend_from_slice(labels);
            self.bytes.push(b'}');
        }
        self.bytes.push(b' ');
    }

    fn whole(&mut self, value: u64) {
        self.add(&[itoa::Buffer::new().format(value), "\n"]);
    }

    fn number(&mut self, value: f64) {
        // A vector takes every byte.
        let _ = writeln!(self.bytes, "{value}");
    }
}

/// A counter, or a gauge.
pub(super) fn whole(labels: &[(&'static str, &str)], value: u64) -> Metric<'static> {
    Metric::new(labels, Value::Whole(value))
}

/// A counter, or a gauge, that need not be whole.
pub(super) fn number(labels: &[(&'static str, &str)], value: f64) -> Metric<'static> {
    Metric::new(labels, Value::Number(value))
}

/// A histogram in seconds, of the numbers in buckets with these bounds.
pub(super) fn histogram<'a>(
    labels: &[(&'static str, &str)],
    bounds: &'a Bounds,
    counts: &[u64],
    sum: f64,
) -> Metric<'a> {
    debug_assert_eq!(bounds.0.len(), counts.len());
    Metric::new(labels, Value::Histogram(bounds, counts.to_vec(), sum))
}

impl<'a> Metric<'a> {
    fn new(labels: &[(&'static str, &str)], value: Value<'a>) -> Self {
        debug_assert!(labels.len() <= MOST_LABELS);
        let names = std::array::from_fn(|at| labels.get(at).map_or("", |(name, _)| name));
        Self { names, labels: escaped(labels), value }
    }
}

fn escaped(labels: &[(&'static str, &str)]) -> Vec<u8> {
    let length = labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut text = Vec::with_capacity(length);
    for (name, value) in labels {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"=\"");
        if value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            text.extend_from_slice(value.as_bytes());
        } else {
            text.extend_from_slice(value.as_bytes());
        }
        text.push(b'"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::proto::{self, LabelPair};
    use proptest::{collection::vec, prelude::*};

    const BOUNDS_US: [u64; 3] = [16, 1_000, 2_097_152];

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
        let mut text = Text::default();
        text.collected(family).unwrap();
        String::from_utf8(text.bytes).unwrap()
    }

    fn written(kind: Kind, metric: Metric<'_>) -> String {
        let mut text = Text::default();
        text.family(("name", "Help.", kind), [metric]);
        String::from_utf8(text.bytes).unwrap()
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_crate(
            values in vec("(?s).{0,8}|[\\\\\"\n]{1,4}", 0..3), count in 0..1_u64 << 53, part in any::<f64>(),
            counts in vec(0..1_u64 << 50, BOUNDS_US.len() + 1),
        ) {
            let labels: Vec<(&'static str, &str)> = ["a", "b"].into_iter().zip(values.iter().map(String::as_str)).collect();
            let counter = encoded(MetricType::COUNTER, &labels, |metric| {
                let mut counter = proto::Counter::default();
                counter.set_value(count as f64);
                metric.set_counter(counter);
            });
            prop_assert_eq!(written(Kind::Counter, whole(&labels, count)), counter);
            let gauge = encoded(MetricType::GAUGE, &labels, |metric| {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(part);
                metric.set_gauge(gauge);
            });
            prop_assert_eq!(written(Kind::Gauge, number(&labels, part)), gauge);
            let measured = encoded(MetricType::HISTOGRAM, &labels, |metric| {
                let mut histogram = proto::Histogram::default();
                let mut below = 0;
                histogram.set_bucket(BOUNDS_US.iter().zip(&counts).map(|(us, count)| {
                    below += count;
                    let mut bucket = proto::Bucket::default();
                    bucket.set_cumulative_count(below);
                    bucket.set_upper_bound(*us as f64 / 1e6);
                    bucket
                }).collect());
                histogram.set_sample_count(counts.iter().sum());
                histogram.set_sample_sum(part);
                metric.set_histogram(histogram);
            });
            let bounds = Bounds::new(BOUNDS_US.into_iter());
            prop_assert_eq!(written(Kind::Histogram, histogram(&labels, &bounds, &counts, part)), measured);
        }
    }

    #[test]
    fn a_family_of_many_is_one_family_and_one_of_none_is_not_there() {
        let mut text = Text::default();
        text.family(("none", "None.", Kind::Gauge), []);
        text.family(("many_total", "Many.", Kind::Counter), (0..3).map(|n| whole(&[("n", &n.to_string())], u64::MAX)));
        let expected = "# HELP many_total Many.\n# TYPE many_total counter\nmany_total{n=\"0\"} 18446744073709551615\n\
            many_total{n=\"1\"} 18446744073709551615\nmany_total{n=\"2\"} 18446744073709551615\n";
        assert_eq!(String::from_utf8(text.bytes).unwrap(), expected);
    }
}

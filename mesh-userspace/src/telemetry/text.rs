//! Metrics as Prometheus text, family by family.

use prometheus::{
    Encoder, TextEncoder,
    proto::{self, Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// How many metrics are made at once. The encoder wants each as a tree of its own, some 400 bytes: of 300,000 endpoints
/// a family would take more memory than its text.
const PART: usize = 4096;

/// The text so far.
#[derive(Default)]
pub(super) struct Text(pub(super) Vec<u8>);

impl Text {
    pub(super) fn add(&mut self, family: MetricFamily) -> Result<(), prometheus::Error> {
        TextEncoder::new().encode(&[family], &mut self.0)
    }

    /// Adds a family of any size, part by part.
    pub(super) fn family(
        &mut self,
        (name, help, kind): (&str, &str, MetricType),
        mut metrics: impl Iterator<Item = Metric>,
    ) -> Result<(), prometheus::Error> {
        let mut part: Vec<Metric> = metrics.by_ref().take(PART).collect();
        let mut is_first = true;
        while !part.is_empty() {
            let start = self.0.len();
            self.add(family(name, help, kind, part))?;
            if !is_first {
                // Every part comes with a head (`# HELP`, `# TYPE`), and a family has one.
                let lines = self.0[start..].split_inclusive(|byte| *byte == b'\n');
                let head: usize = lines.take_while(|line| line.starts_with(b"#")).map(<[u8]>::len).sum();
                self.0.drain(start..start + head);
            }
            is_first = false;
            part = metrics.by_ref().take(PART).collect();
        }
        Ok(())
    }
}

pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    number(MetricType::COUNTER, labels, value as f64)
}

pub(super) fn gauge(labels: &[(&str, &str)], value: u64) -> Metric {
    number(MetricType::GAUGE, labels, value as f64)
}

/// A histogram in seconds, of the numbers in buckets with these bounds; the last bucket has none, and the encoder names it.
pub(super) fn histogram(
    labels: &[(&str, &str)],
    bounds: impl Iterator<Item = f64>,
    counts: &[u64],
    sum: f64,
) -> Metric {
    let mut below = 0;
    let buckets = bounds.zip(counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(below);
        bucket.set_upper_bound(bound);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_histogram(histogram);
    metric
}

pub(super) fn number(kind: MetricType, labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(pairs(labels));
    if kind == MetricType::GAUGE {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    } else {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    }
    metric
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_many_parts_is_one_family() {
        let mut text = Text::default();
        let metrics = (0..2 * PART + 1).map(|n| counter(&[("n", &n.to_string())], 1));
        text.family(("many_total", "Many.", MetricType::COUNTER), metrics).unwrap();
        let text = String::from_utf8(text.0).unwrap();
        let mut lines = text.lines();
        assert_eq!((lines.next(), lines.next()), (Some("# HELP many_total Many."), Some("# TYPE many_total counter")));
        let values: Vec<String> = (0..2 * PART + 1).map(|n| format!("many_total{{n=\"{n}\"}} 1")).collect();
        assert!(lines.eq(values));
    }
}

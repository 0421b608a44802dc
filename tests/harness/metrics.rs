//! What `/metrics` says.

use std::collections::BTreeMap;

/// One reading of all metrics.
#[derive(Debug, Clone)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format of Prometheus.
    ///
    /// # Panics
    /// When a line is not of that format.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter(|line| !line.is_empty());
        Self(samples.map(Sample::parse).collect())
    }

    /// The sum of a metric over all series that have these labels; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether there is any series of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples(name, &[]).next().is_some()
    }

    /// Every value that a label has, over all series of all metrics.
    pub fn label_values(&self, label: &str) -> Vec<&str> {
        let values = self.0.iter().filter_map(|sample| sample.labels.get(label));
        values.map(String::as_str).collect()
    }

    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
        })
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed labels")),
            None => (series, ""),
        };
        // No label of ours has a comma or a quote in it.
        let labels = labels.split(',').filter(|pair| !pair.is_empty());
        let labels = labels.map(|pair| {
            let (name, value) = pair.split_once('=').expect("a label and a value");
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        Self {
            name: name.to_owned(),
            labels: labels.collect(),
            value: value.parse().expect("a number"),
        }
    }
}

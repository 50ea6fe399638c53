//! Every query of every dashboard, asked as Grafana asks it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::grafana::expand::{Chosen, Variables};
use crate::grafana::{Dashboard, Query, labels_in, string};

use super::prometheus::{Prometheus, Series};

/// More series than this no panel draws.
pub const BUDGET: usize = 500;

/// The time and the choice of a dashboard that is looked at.
#[derive(Clone, Debug)]
pub struct View {
    pub from: f64,
    pub to: f64,
    pub scrape: f64,
    pub job: Chosen,
    pub instance: Chosen,
    pub port: String,
    pub protocol: String,
}

/// A query and its answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub query: Query,
    pub expanded: String,
    pub series: Vec<Series>,
    pub took: Duration,
}

impl View {
    /// All jobs and all instances.
    pub fn of_all(from: f64, to: f64, scrape: f64, port: &str) -> Self {
        Self {
            from,
            to,
            scrape,
            job: Chosen::All(".+".to_owned()),
            instance: Chosen::All(".+".to_owned()),
            port: port.to_owned(),
            protocol: "tcp".to_owned(),
        }
    }

    /// The step Grafana takes for so many points, never shorter than the scrape interval.
    pub fn step(&self, max_points: u64) -> f64 {
        ((self.to - self.from) / max_points as f64)
            .ceil()
            .max(self.scrape)
    }

    fn variables(&self, step: f64) -> Variables {
        Variables::of_range(self.from, self.to, step, self.scrape)
            .with("job", self.job.clone())
            .with("instance", self.instance.clone())
            .with("port", Chosen::one(&self.port))
            .with("protocol", Chosen::one(&self.protocol))
    }

    /// Asks one query. An error of Prometheus is a failure of the test.
    pub fn ask(&self, prometheus: &Prometheus, query: &Query) -> Answer {
        // A time shorter than the step is asked for at both its ends.
        let step = self
            .step(query.max_points)
            .max(query.min_step)
            .min(self.to - self.from);
        let expanded = self.variables(step).expand(&query.expr);
        let start = Instant::now();
        let series = if query.instant {
            prometheus.instant(&expanded, self.to)
        } else {
            prometheus.range(&expanded, self.from, self.to, step)
        };
        let took = start.elapsed();
        let series = series.unwrap_or_else(|error| panic!("{}: {error}\n{expanded}", query.place));
        let query = query.clone();
        Answer {
            query,
            expanded,
            series,
            took,
        }
    }

    pub fn expand(&self, query: &str) -> String {
        self.variables(self.scrape).expand(query)
    }
}

impl Answer {
    /// Whether it is within the budget, and every label that legend and columns name is in every series.
    pub fn check(&self, columns: &[&str]) {
        let place = &self.query.place;
        assert!(
            self.series.len() <= BUDGET,
            "{place}: {} series\n{}",
            self.series.len(),
            self.expanded
        );
        for series in &self.series {
            let named = labels_in(&self.query.legend);
            for label in named
                .iter()
                .chain(columns)
                .filter(|label| !MAY_BE_EMPTY.contains(label))
            {
                assert!(
                    series.labels.contains_key(*label),
                    "{place}: no label {label} in {:?}\n{}",
                    series.labels,
                    self.expanded
                );
            }
        }
    }
}

/// The columns of a table with one query that are labels; with more, each query gives some of them.
pub fn label_columns(panel: &Value) -> Vec<&str> {
    if panel["targets"]
        .as_array()
        .is_none_or(|targets| targets.len() != 1)
    {
        return Vec::new();
    }
    let transformations = panel["transformations"].as_array().into_iter().flatten();
    transformations
        .filter_map(|transformation| transformation["options"]["include"]["names"].as_array())
        .flatten()
        .map(string)
        .filter(|column| !column.starts_with("Value"))
        .collect()
}

/// Labels of which the contract says that they are empty when nothing is known; an empty label is none to Prometheus.
const MAY_BE_EMPTY: [&str; 8] = [
    "process",
    "user",
    "unit",
    "netns",
    "watch",
    "expected",
    "service_name",
    "revision",
];

/// Asks everything a dashboard asks; panels in their order, then annotations.
pub fn ask_all(prometheus: &Prometheus, dashboard: &Dashboard, view: &View) -> Vec<Answer> {
    let mut answers = Vec::new();
    for panel in dashboard.drawing() {
        let merged = panel["type"] == "table" && dashboard.queries_of(panel).len() > 1;
        for query in dashboard.queries_of(panel) {
            let answer = view.ask(prometheus, &query);
            answer.check(&label_columns(panel));
            // Rows are merged by the labels they share, and the name would be one that none shares.
            let named = answer
                .series
                .iter()
                .any(|series| series.labels.contains_key("__name__"));
            assert!(!(merged && named), "{}: rows cannot be merged", query.place);
            answers.push(answer);
        }
    }
    for query in dashboard.annotation_queries() {
        let answer = view.ask(prometheus, &query);
        answer.check(&[]);
        answers.push(answer);
    }
    answers
}

/// Asks what each variable offers; none may be empty.
pub fn ask_variables(prometheus: &Prometheus, dashboard: &Dashboard, view: &View) {
    for (name, selector, label) in dashboard.variable_queries() {
        let selector = view.expand(&selector);
        let values = prometheus
            .label_values(&selector, &label, view.from, view.to)
            .unwrap_or_else(|error| panic!("{}: variable {name}: {error}", dashboard.name));
        assert!(
            !values.is_empty(),
            "{}: variable {name} offers nothing",
            dashboard.name
        );
    }
}

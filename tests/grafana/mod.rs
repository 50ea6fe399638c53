//! What the tests of the dashboards share: the JSON as panels and queries, the rules files, and the expansion of variables
//! as Grafana does it.

// Each test binary uses a part of this.
#![allow(dead_code, unreachable_pub)]

pub mod expand;
pub mod promql;
pub mod rules;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Every dashboard, by the name of its file.
pub const NAMES: [&str; 5] = ["overview", "dark-space", "port", "exporter", "fleet"];

/// A file of this repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// The text of a file of this repository.
pub fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// A dashboard as its file has it.
#[derive(Clone, Debug)]
pub struct Dashboard {
    pub name: &'static str,
    pub model: Value,
}

/// A query and where it stands.
#[derive(Clone, Debug)]
pub struct Query {
    /// Dashboard, panel (or variable or annotation) and letter, for a message.
    pub place: String,
    pub expr: String,
    pub instant: bool,
    pub legend: String,
    pub max_points: u64,
    /// In seconds, what the query asks for at least; 0 if it asks for nothing.
    pub min_step: f64,
}

pub fn dashboards() -> Vec<Dashboard> {
    NAMES
        .into_iter()
        .map(|name| Dashboard::read(name, "dashboards"))
        .collect()
}

pub fn library() -> Vec<Dashboard> {
    NAMES
        .into_iter()
        .map(|name| Dashboard::read(name, "dashboards/library"))
        .collect()
}

impl Dashboard {
    fn read(name: &'static str, directory: &str) -> Self {
        let file = format!("{directory}/{name}.json");
        let model =
            serde_json::from_str(&text(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        Self { name, model }
    }

    pub fn uid(&self) -> &str {
        string(&self.model["uid"])
    }

    /// All panels, rows too.
    pub fn panels(&self) -> Vec<&Value> {
        list(&self.model["panels"]).collect()
    }

    /// The panels that draw something.
    pub fn drawing(&self) -> Vec<&Value> {
        self.panels()
            .into_iter()
            .filter(|panel| panel["type"] != "row")
            .collect()
    }

    pub fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.model["templating"]["list"])
    }

    pub fn annotations(&self) -> impl Iterator<Item = &Value> {
        list(&self.model["annotations"]["list"])
    }

    pub fn panel_queries(&self) -> Vec<Query> {
        let mut queries = Vec::new();
        for panel in self.drawing() {
            queries.extend(self.queries_of(panel));
        }
        queries
    }

    pub fn queries_of(&self, panel: &Value) -> Vec<Query> {
        list(&panel["targets"])
            .map(|target| Query {
                place: format!(
                    "{} / {} / {}",
                    self.name,
                    string(&panel["title"]),
                    string(&target["refId"])
                ),
                expr: string(&target["expr"]).to_owned(),
                instant: target["instant"] == true,
                legend: string(&target["legendFormat"]).to_owned(),
                max_points: panel["maxDataPoints"].as_u64().unwrap_or(600),
                min_step: 0.0,
            })
            .collect()
    }

    pub fn annotation_queries(&self) -> Vec<Query> {
        self.annotations()
            .map(|annotation| Query {
                place: format!("{} / annotation {}", self.name, string(&annotation["name"])),
                expr: string(&annotation["expr"]).to_owned(),
                instant: false,
                legend: format!(
                    "{}{}",
                    string(&annotation["titleFormat"]),
                    string(&annotation["textFormat"])
                ),
                max_points: 600,
                min_step: string(&annotation["step"])
                    .strip_suffix('s')
                    .and_then(|seconds| seconds.parse().ok())
                    .expect("a step in seconds"),
            })
            .collect()
    }

    /// `label_values(selector, label)` of each variable that asks: its name, the selector and the label.
    pub fn variable_queries(&self) -> Vec<(String, String, String)> {
        self.variables()
            .filter(|variable| variable["type"] == "query")
            .map(|variable| {
                let name = string(&variable["name"]);
                let query = string(&variable["query"]["query"]);
                let (selector, label) = query
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .and_then(|inside| inside.rsplit_once(", "))
                    .unwrap_or_else(|| panic!("{}: variable {name} asks {query}", self.name));
                (name.to_owned(), selector.to_owned(), label.to_owned())
            })
            .collect()
    }
}

pub fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a string: {value}"))
}

pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {value}"))
        .iter()
}

/// The names between `{{` and `}}`.
pub fn labels_in(template: &str) -> Vec<&str> {
    template
        .split("{{")
        .skip(1)
        .map(|rest| rest.split("}}").next().unwrap_or_default().trim())
        .collect()
}

//! The dashboards, rules and alerts as files: what can be known of them without Grafana and without Prometheus.
//!
//! The rules of grafana/dashboard-linter hold here for every type of panel; that queries run and return data is the live
//! test's business.

mod grafana;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use darkport_exporter::counts::Tier;
use darkport_exporter::metrics::{FAMILIES, PROBE_FAMILIES};
use serde_json::{Value, json};

use grafana::expand::{Chosen, Variables};
use grafana::promql::{Selector, selectors};
use grafana::{Dashboard, Query, dashboards, labels_in, library, list, path, rules, string, text};

/// What Prometheus or the process adds, and is not in FAMILIES.
const FOREIGN: [&str; 4] = [
    "up",
    "scrape_samples_scraped",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

/// The one recorded name that is no level:metric:operations: two views joined, and not one family summed up.
const DISAGREEMENT: &str = "darkport:disagreement";

/// The one query outside Fleet that reads what is recorded, because it joins what no variable of a dashboard narrows alike.
const INSIDE_AGAINST_OUTSIDE: &str = "port / Inside against outside / A";

/// The units used, all of them in Grafana's list.
const UNITS: [&str; 8] = [
    "none",
    "short",
    "locale",
    "percentunit",
    "cps",
    "s",
    "bytes",
    "dateTimeFromNow",
];

/// The panels used: all in Grafana's core, none of them Angular.
const PANELS: [&str; 7] = [
    "bargauge",
    "heatmap",
    "stat",
    "state-timeline",
    "status-history",
    "table",
    "timeseries",
];

/// Okabe and Ito's colours, grey, and none.
const COLORS: [&str; 9] = [
    "#0072B2",
    "#56B4E9",
    "#009E73",
    "#E69F00",
    "#D55E00",
    "#CC79A7",
    "#F0E442",
    "#808080",
    "transparent",
];

fn title(panel: &Value) -> &str {
    string(&panel["title"])
}

/// Calls `see` with every object in the tree.
fn each_object(value: &Value, see: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            see(object);
            object.values().for_each(|inner| each_object(inner, see));
        }
        Value::Array(items) => items.iter().for_each(|inner| each_object(inner, see)),
        _ => {}
    }
}

/// A query in which the built-in variables have values and those of the user stand as they are.
fn parsed(query: &Query) -> Vec<Selector> {
    let mut variables = Variables::of_range(1_000.0, 22_600.0, 30.0, 15.0);
    for name in ["job", "instance", "port", "protocol"] {
        variables = variables.with(name, Chosen::Raw(format!("${name}")));
    }
    // A range that no query writes by itself, so that it is known again as $__rate_interval.
    let variables = variables.with("__rate_interval", Chosen::Raw("61s".to_owned()));
    selectors(&variables.expand(&query.expr))
        .unwrap_or_else(|error| panic!("{}: {error}", query.place))
}

fn all_queries(dashboard: &Dashboard) -> Vec<Query> {
    let mut queries = dashboard.panel_queries();
    queries.extend(dashboard.annotation_queries());
    queries
}

#[test]
fn every_dashboard_provisions_as_it_lies() {
    let mut uids = HashSet::new();
    for dashboard in dashboards() {
        let model = &dashboard.model;
        let name = dashboard.name;
        assert_eq!(model["id"], Value::Null, "{name}");
        assert_eq!(dashboard.uid(), format!("darkport-{name}"));
        assert!(uids.insert(dashboard.uid().to_owned()), "{name}");
        assert_eq!(model["schemaVersion"], 39, "{name}");
        assert_eq!(model["editable"], false, "{name}");
        assert_eq!(model["tags"], json!(["darkport"]), "{name}");
        assert!(string(&model["title"]).starts_with("Darkport / "), "{name}");
        assert!(string(&model["description"]).len() > 20, "{name}");
        assert!(
            model.get("__inputs").is_none() && model.get("__requires").is_none(),
            "{name}"
        );
        let source = text(&format!("dashboards/{name}.json"));
        assert!(
            !source.contains("${DS_"),
            "{name} has an import input, which provisioning leaves as it is"
        );
        assert!(
            !source.contains("apiVersion"),
            "{name} is not of the classic model"
        );
    }
}

#[test]
fn the_data_source_is_always_the_variable() {
    for dashboard in dashboards() {
        let mut seen = 0;
        each_object(&dashboard.model, &mut |object| {
            if let Some(datasource) = object.get("datasource") {
                assert_eq!(
                    *datasource,
                    json!({"type": "prometheus", "uid": "${datasource}"}),
                    "{}",
                    dashboard.name
                );
                seen += 1;
            }
        });
        let queries = dashboard.panel_queries().len();
        assert!(
            seen > queries + dashboard.drawing().len(),
            "{}: {seen}",
            dashboard.name
        );
    }
}

#[test]
fn the_variables_are_those_of_every_dashboard() {
    for dashboard in dashboards() {
        let name = dashboard.name;
        let variables: Vec<_> = dashboard.variables().collect();
        let names: Vec<_> = variables
            .iter()
            .map(|variable| string(&variable["name"]))
            .collect();
        let wanted: &[&str] = if name == "port" {
            &["datasource", "job", "instance", "port", "protocol"]
        } else {
            &["datasource", "job", "instance"]
        };
        assert_eq!(names, wanted, "{name}");
        assert_eq!(variables[0]["type"], "datasource", "{name}");
        assert_eq!(variables[0]["query"], "prometheus", "{name}");
        assert_eq!(variables[0]["label"], "Data source", "{name}");
        for (variable, label) in variables[1..3].iter().zip(["Job", "Instance"]) {
            assert_eq!(variable["label"], label, "{name}");
            assert_eq!(variable["type"], "query", "{name}");
            assert_eq!(variable["multi"], true, "{name}");
            assert_eq!(variable["includeAll"], true, "{name}");
            assert_eq!(variable["allValue"], ".+", "{name}");
        }
        for variable in variables
            .iter()
            .filter(|variable| variable["type"] == "query")
        {
            assert_eq!(
                variable["refresh"], 2,
                "{name}: a variable that is not asked again grows stale"
            );
            assert_eq!(variable["definition"], variable["query"]["query"], "{name}");
        }
        for (variable, selector, label) in dashboard.variable_queries() {
            let family = selector.split('{').next().unwrap_or_default();
            // One series a host; the port alone is asked of the one family that has one series a port.
            let wanted = if variable == "port" {
                "darkport_watched_port_info"
            } else {
                "darkport_exporter_build_info"
            };
            assert_eq!(family, wanted, "{name}: {variable}");
            assert_eq!(label, variable, "{name}");
        }
    }
}

#[test]
fn every_panel_says_what_it_is_and_what_to_do_about_it() {
    for dashboard in dashboards() {
        let mut ids = HashSet::new();
        let mut titles = HashSet::new();
        for panel in dashboard.panels() {
            let place = format!("{} / {}", dashboard.name, title(panel));
            assert!(
                ids.insert(panel["id"].as_u64().expect("an id")),
                "{place}: id"
            );
            assert!(!title(panel).is_empty(), "{place}");
            if panel["type"] == "row" {
                continue;
            }
            assert!(titles.insert(title(panel)), "{place}: title twice");
            assert!(
                PANELS.contains(&string(&panel["type"])),
                "{place}: {}",
                panel["type"]
            );
            assert!(
                string(&panel["description"]).split_whitespace().count() >= 10,
                "{place}: description"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!string(&defaults["noValue"]).is_empty(), "{place}: noValue");
            assert!(list(&panel["targets"]).count() > 0, "{place}: no query");
            let letters: HashSet<_> = list(&panel["targets"])
                .map(|target| string(&target["refId"]))
                .collect();
            assert_eq!(
                letters.len(),
                list(&panel["targets"]).count(),
                "{place}: refId twice"
            );
            assert!(
                UNITS.contains(&string(&defaults["unit"])),
                "{place}: {}",
                defaults["unit"]
            );
            for property in list(&panel["fieldConfig"]["overrides"])
                .flat_map(|field| list(&field["properties"]))
            {
                if property["id"] == "unit" {
                    assert!(
                        UNITS.contains(&string(&property["value"])),
                        "{place}: {}",
                        property["value"]
                    );
                }
            }
        }
    }
}

#[test]
fn panels_fill_the_grid_without_overlap() {
    for dashboard in dashboards() {
        let mut taken = HashSet::new();
        for panel in dashboard.panels() {
            let grid = |key: &str| panel["gridPos"][key].as_u64().expect(key);
            assert!(
                grid("w") > 0 && grid("h") > 0 && grid("x") + grid("w") <= 24,
                "{}: {}",
                dashboard.name,
                title(panel)
            );
            for x in grid("x")..grid("x") + grid("w") {
                for y in grid("y")..grid("y") + grid("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{}: {} overlaps at {x},{y}",
                        dashboard.name,
                        title(panel)
                    );
                }
            }
        }
        let bottom = taken.iter().map(|&(_, y)| y + 1).max().unwrap_or(0);
        for y in 0..bottom {
            assert!(
                (0..24).all(|x| taken.contains(&(x, y))),
                "{}: a hole in line {y}",
                dashboard.name
            );
        }
    }
}

#[test]
fn colors_are_told_apart_by_every_eye() {
    for dashboard in dashboards() {
        each_object(&dashboard.model["panels"], &mut |object| {
            for key in ["color", "fixedColor", "fill"] {
                if let Some(Value::String(color)) = object.get(key) {
                    assert!(
                        COLORS.contains(&color.as_str()),
                        "{}: {color}",
                        dashboard.name
                    );
                }
            }
        });
    }
}

/// The labels a metric may carry, or nothing if there is no such metric.
fn labels_of(metric: &str) -> Option<Vec<&'static str>> {
    if FOREIGN.contains(&metric) {
        return Some(Vec::new());
    }
    if let Some(family) = FAMILIES.iter().find(|family| family.name == metric) {
        return Some(family.labels.to_vec());
    }
    if let Some(family) = PROBE_FAMILIES.iter().find(|family| family.name == metric) {
        return Some(family.labels.to_vec());
    }
    if metric == DISAGREEMENT {
        return Some(vec!["port", "protocol", "kind"]);
    }
    rules::recorded()
        .iter()
        .any(|rule| rule.name() == metric)
        .then(|| vec!["range"])
}

fn is_counter(metric: &str) -> bool {
    FAMILIES
        .iter()
        .find(|family| family.name == metric)
        .map_or(metric.ends_with("_total"), |family| {
            family.kind.as_str() == "counter"
        })
}

fn families_and_labels_exist(place: &str, selectors: &[Selector]) {
    assert!(!selectors.is_empty(), "{place}: asks for nothing");
    for selector in selectors {
        let labels = labels_of(&selector.metric)
            .unwrap_or_else(|| panic!("{place}: there is no {}", selector.metric));
        for (label, _, _) in &selector.matchers {
            assert!(
                ["job", "instance"].contains(&label.as_str()) || labels.contains(&label.as_str()),
                "{place}: {} has no label {label}",
                selector.metric
            );
        }
        let function = selector.function.as_deref().unwrap_or("");
        if is_counter(&selector.metric) {
            assert!(
                ["rate", "irate", "increase"].contains(&function),
                "{place}: counter {} outside rate, irate and increase",
                selector.metric
            );
        } else {
            assert!(
                !["rate", "irate", "increase"].contains(&function),
                "{place}: {function} of gauge {}",
                selector.metric
            );
        }
    }
}

#[test]
fn every_query_is_promql_over_families_and_labels_that_exist() {
    for dashboard in dashboards() {
        for query in all_queries(&dashboard) {
            families_and_labels_exist(&query.place, &parsed(&query));
        }
    }
}

#[test]
fn every_query_is_narrowed_by_job_and_instance() {
    for dashboard in dashboards() {
        for query in all_queries(&dashboard) {
            for selector in parsed(&query) {
                for label in ["job", "instance"] {
                    let wanted = (label.to_owned(), "=~".to_owned(), format!("${label}"));
                    assert!(
                        selector.matchers.contains(&wanted),
                        "{}: {} without {label}",
                        query.place,
                        selector.metric
                    );
                }
            }
        }
    }
}

#[test]
fn rates_follow_the_scrape_interval() {
    for dashboard in dashboards() {
        for query in dashboard.panel_queries() {
            for selector in parsed(&query) {
                if matches!(selector.function.as_deref(), Some("rate" | "irate")) {
                    assert_eq!(
                        selector.range.map(|range| range.as_secs()),
                        Some(61),
                        "{}: not $__rate_interval",
                        query.place
                    );
                }
            }
        }
    }
}

#[test]
fn what_needs_the_kernel_tier_says_so() {
    let kernel_only = |metric: &str| {
        FAMILIES
            .iter()
            .any(|family| family.name == metric && family.tiers == [Tier::Kernel])
            || metric.contains("_knocks:")
    };
    for dashboard in dashboards() {
        for panel in dashboard.drawing() {
            let place = format!("{} / {}", dashboard.name, title(panel));
            let queries: Vec<_> = dashboard.queries_of(panel).iter().map(parsed).collect();
            let needs = |selectors: &Vec<Selector>| {
                selectors
                    .iter()
                    .any(|selector| kernel_only(&selector.metric))
            };
            if queries.iter().any(needs) {
                assert!(
                    string(&panel["description"]).contains("kernel tier"),
                    "{place}: description"
                );
            }
            if queries.iter().all(needs) {
                assert!(
                    string(&panel["fieldConfig"]["defaults"]["noValue"]).contains("kernel tier"),
                    "{place}: noValue"
                );
            }
            // What is not known must not become a zero.
            for query in dashboard.queries_of(panel) {
                assert!(!query.expr.contains("vector(0)"), "{place}");
            }
        }
    }
}

#[test]
fn rows_of_hosts_and_ports_are_limited() {
    for dashboard in dashboards() {
        for panel in dashboard.drawing() {
            if !["state-timeline", "status-history"].contains(&string(&panel["type"])) {
                continue;
            }
            for query in dashboard.queries_of(panel) {
                assert!(
                    query.expr.contains("topk(40,"),
                    "{}: more rows than can be read",
                    query.place
                );
            }
        }
    }
}

#[test]
fn heatmap_rows_are_zero_padded_numbers() {
    for dashboard in dashboards() {
        for panel in dashboard
            .drawing()
            .into_iter()
            .filter(|panel| panel["type"] == "heatmap")
        {
            for query in dashboard.queries_of(panel) {
                assert_eq!(query.legend, "{{block}}", "{}", query.place);
                assert_eq!(
                    panel["targets"][0]["format"], "time_series",
                    "{}: buckets would be subtracted",
                    query.place
                );
            }
            assert_eq!(panel["options"]["calculate"], false);
        }
    }
}

#[test]
fn legends_and_columns_name_labels_of_the_query() {
    for dashboard in dashboards() {
        for panel in dashboard.drawing() {
            let mut known: BTreeSet<String> = BTreeSet::new();
            for query in dashboard.queries_of(panel) {
                let labels: BTreeSet<String> = parsed(&query)
                    .iter()
                    .flat_map(|selector| labels_of(&selector.metric).unwrap_or_default())
                    .map(str::to_owned)
                    .chain(["job".to_owned(), "instance".to_owned()])
                    .collect();
                for label in labels_in(&query.legend) {
                    assert!(labels.contains(label), "{}: legend {label}", query.place);
                }
                known.extend(labels);
            }
            let targets = list(&panel["targets"]).count();
            for column in columns(panel) {
                let value = if targets == 1 {
                    column == "Value"
                } else {
                    column.starts_with("Value #")
                };
                assert!(
                    value || known.contains(column),
                    "{} / {}: column {column}",
                    dashboard.name,
                    title(panel)
                );
            }
        }
    }
}

/// The columns a table keeps.
fn columns(panel: &Value) -> Vec<&str> {
    panel["transformations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|transformation| transformation["id"] == "filterFieldsByName")
        .flat_map(|transformation| list(&transformation["options"]["include"]["names"]))
        .map(string)
        .collect()
}

#[test]
fn overrides_match_columns_and_series_that_exist() {
    for dashboard in dashboards() {
        for panel in dashboard
            .drawing()
            .into_iter()
            .filter(|panel| panel["type"] == "table")
        {
            let shown: HashSet<String> = panel["transformations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|transformation| transformation["id"] == "organize")
                .flat_map(|transformation| {
                    let renamed = transformation["options"]["renameByName"]
                        .as_object()
                        .expect("names");
                    columns(panel)
                        .into_iter()
                        .map(|name| renamed.get(name).map_or(name, string).to_owned())
                        .collect::<Vec<_>>()
                })
                .collect();
            for field in list(&panel["fieldConfig"]["overrides"]) {
                let name = string(&field["matcher"]["options"]);
                assert!(
                    shown.contains(name),
                    "{} / {}: no column {name}",
                    dashboard.name,
                    title(panel)
                );
            }
            for sort in list(&panel["options"]["sortBy"]) {
                assert!(
                    shown.contains(string(&sort["displayName"])),
                    "{} / {}",
                    dashboard.name,
                    title(panel)
                );
            }
        }
    }
}

#[test]
fn links_lead_to_dashboards_and_variables_that_exist() {
    let all = dashboards();
    let variables: BTreeMap<&str, HashSet<&str>> = all
        .iter()
        .map(|dashboard| {
            (
                dashboard.uid(),
                dashboard
                    .variables()
                    .map(|variable| string(&variable["name"]))
                    .collect(),
            )
        })
        .collect();
    for dashboard in &all {
        let links: Vec<_> = list(&dashboard.model["links"]).collect();
        assert_eq!(links.len(), 1, "{}", dashboard.name);
        assert_eq!(links[0]["type"], "dashboards");
        assert_eq!(links[0]["tags"], json!(["darkport"]));
        assert_eq!(
            (&links[0]["keepTime"], &links[0]["includeVars"]),
            (&json!(true), &json!(true))
        );
        each_object(&dashboard.model["panels"], &mut |object| {
            let Some(url) = object.get("url").and_then(Value::as_str) else {
                return;
            };
            let (uid, query) = url
                .strip_prefix("/d/")
                .and_then(|rest| rest.split_once('?'))
                .unwrap_or_else(|| panic!("{}: {url}", dashboard.name));
            let known = variables
                .get(uid)
                .unwrap_or_else(|| panic!("{}: no dashboard {uid}", dashboard.name));
            assert!(
                query.contains("${__url_time_range}"),
                "{}: the time is lost: {url}",
                dashboard.name
            );
            for part in query.split('&') {
                let name = part
                    .strip_prefix("var-")
                    .and_then(|rest| rest.split('=').next())
                    .or_else(|| {
                        part.strip_prefix("${")
                            .and_then(|rest| rest.strip_suffix(":queryparam}"))
                    });
                if let Some(name) = name {
                    assert!(
                        known.contains(name),
                        "{}: {uid} has no variable {name}",
                        dashboard.name
                    );
                }
            }
        });
    }
}

#[test]
fn every_port_in_a_table_leads_to_all_about_it() {
    for dashboard in dashboards()
        .iter()
        .filter(|dashboard| dashboard.name != "port")
    {
        for panel in dashboard
            .drawing()
            .into_iter()
            .filter(|panel| columns(panel).contains(&"port"))
        {
            let links = panel.to_string();
            assert!(
                links.contains("/d/darkport-port?")
                    && links.contains(
                        "var-port=${__data.fields.Port}&var-protocol=${__data.fields.Protocol}"
                    ),
                "{} / {}",
                dashboard.name,
                title(panel)
            );
        }
    }
}

#[test]
fn annotations_have_their_fields_on_themselves() {
    for dashboard in dashboards() {
        for annotation in dashboard.annotations() {
            for key in ["expr", "step", "titleFormat", "textFormat", "tagKeys"] {
                assert!(annotation[key].is_string(), "{}: {key}", dashboard.name);
            }
            // A value that is a time is one in milliseconds.
            if annotation["useValueForTime"] == "on" {
                assert!(
                    string(&annotation["expr"]).contains("* 1000"),
                    "{}",
                    dashboard.name
                );
            }
        }
        let opens = dashboard
            .annotations()
            .any(|annotation| annotation["name"] == "Listener opened");
        assert_eq!(
            opens,
            ["overview", "dark-space", "port"].contains(&dashboard.name),
            "{}",
            dashboard.name
        );
    }
}

#[test]
fn the_library_has_the_same_dashboards_with_their_inputs() {
    for (plain, mut imported) in dashboards().into_iter().zip(library()) {
        let object = imported.model.as_object_mut().expect("an object");
        let inputs = object.remove("__inputs").expect("__inputs");
        let requires = object.remove("__requires").expect("__requires");
        object.remove("__elements").expect("__elements");
        assert_eq!(inputs[0]["name"], "DS_PROMETHEUS");
        let kinds: BTreeSet<_> = list(&requires)
            .filter(|wanted| wanted["type"] == "panel")
            .map(|wanted| string(&wanted["id"]).to_owned())
            .collect();
        let used: BTreeSet<_> = plain
            .drawing()
            .iter()
            .map(|panel| string(&panel["type"]).to_owned())
            .collect();
        assert_eq!(kinds, used, "{}", plain.name);
        let current = &mut imported.model["templating"]["list"][0]["current"];
        assert_eq!(current["value"], "${DS_PROMETHEUS}");
        *current = json!({});
        assert_eq!(imported.model, plain.model, "{}", plain.name);
    }
}

#[test]
fn alerts_are_complete_and_each_has_its_runbook() {
    const RUNBOOKS: &str = "/blob/main/docs/runbooks/";
    let repository = env!("CARGO_PKG_REPOSITORY");
    let mut summaries: BTreeMap<(String, String), String> = BTreeMap::new();
    for alert in rules::alerts() {
        let name = alert.name();
        assert!(name.starts_with("Darkport"), "{name}");
        assert!(
            ["critical", "warning", "info"].contains(&alert.severity.as_str()),
            "{name}: {}",
            alert.severity
        );
        assert!(
            !alert.summary.is_empty() && !alert.summary.contains("{{"),
            "{name}: the summary is one fixed sentence"
        );
        assert!(alert.summary.ends_with('.'), "{name}");
        assert!(alert.description.len() > alert.summary.len() / 2, "{name}");
        assert_eq!(
            alert.runbook_url,
            format!("{repository}{RUNBOOKS}{name}.md")
        );
        let runbook = text(&format!("docs/runbooks/{name}.md"));
        assert!(runbook.starts_with(&format!("# {name}\n")), "{name}");
        for heading in ["## Check", "## When it is allowed"] {
            assert!(runbook.contains(heading), "{name}: {heading}");
        }
        let before = summaries.insert(
            (name.to_owned(), alert.severity.clone()),
            alert.summary.clone(),
        );
        assert_eq!(before, None, "{name}: {} twice", alert.severity);
    }
    let named: BTreeSet<_> = summaries
        .keys()
        .map(|(name, _)| format!("{name}.md"))
        .collect();
    let written: BTreeSet<_> = std::fs::read_dir(path("docs/runbooks"))
        .expect("docs/runbooks")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    assert_eq!(named, written, "a runbook for each alert, and no other");
}

#[test]
fn rules_are_promql_over_families_that_exist() {
    for rule in rules::alerts().iter().chain(&rules::recorded()) {
        let selectors =
            selectors(&rule.expr).unwrap_or_else(|error| panic!("{}: {error}", rule.name()));
        families_and_labels_exist(rule.name(), &selectors);
        let recorded = selectors
            .iter()
            .any(|selector| selector.metric.contains(':'));
        assert!(!recorded, "{}: needs another rules file", rule.name());
    }
}

#[test]
fn the_entry_that_alerts_leave_out_is_in_the_default_configuration() {
    let left_out = r#"watch!="registered""#;
    assert!(
        rules::alerts()
            .iter()
            .any(|alert| alert.expr.contains(left_out))
    );
    let default = text("src/default.yml");
    let entry = default
        .split("- name: ")
        .find(|entry| entry.starts_with("registered\n"))
        .expect("the entry");
    assert!(entry.contains("series: active") && entry.contains("- address: \"*\""));
}

#[test]
fn recorded_names_tell_level_metric_and_operations() {
    for rule in rules::recorded()
        .iter()
        .filter(|rule| rule.name() != DISAGREEMENT)
    {
        let parts: Vec<_> = rule.name().split(':').collect();
        assert_eq!(parts.len(), 3, "{}", rule.name());
        assert!(parts[0].starts_with("instance"), "{}", rule.name());
        assert!(
            FAMILIES
                .iter()
                .any(|family| family.name.trim_end_matches("_total") == parts[1]),
            "{}: no family {}",
            rule.name(),
            parts[1]
        );
        assert!(
            rule.expr.contains(" without ("),
            "{}: aggregates without",
            rule.name()
        );
        let used = text("dashboards/fleet.json").contains(&format!("{}{{", rule.name()));
        assert!(used, "{}: nothing uses it", rule.name());
    }
    for dashboard in dashboards() {
        for query in all_queries(&dashboard) {
            let recorded = parsed(&query)
                .iter()
                .any(|selector| selector.metric.contains(':'));
            assert!(
                dashboard.name == "fleet" || !recorded || query.place == INSIDE_AGAINST_OUTSIDE,
                "{}: needs the recording rules",
                query.place
            );
        }
    }
}

#[test]
fn disagreement_is_recorded_of_either_kind_and_shown() {
    let kinds: Vec<String> = rules::recorded()
        .into_iter()
        .filter(|rule| rule.name() == DISAGREEMENT)
        .map(|rule| rule.kind)
        .collect();
    assert_eq!(kinds, ["firewalled", "answers_unseen"]);
    let shown = dashboards()
        .iter()
        .flat_map(Dashboard::panel_queries)
        .find(|query| query.place == INSIDE_AGAINST_OUTSIDE)
        .expect("the panel");
    for kind in kinds {
        assert!(shown.expr.contains(&format!("kind=\"{kind}\"")), "{kind}");
    }
}

#[test]
fn each_alert_is_tested_for_firing_and_for_silence() {
    let tests = text("dashboards/prometheus/darkport.alerts.test.yml");
    for alert in rules::alerts() {
        let name = alert.name();
        assert!(
            tests.contains(&format!("{{eval_time: 60m, alertname: {name}}}")),
            "{name}: an hour of silence"
        );
        assert!(
            tests.contains(&format!("summary: \"{}\"", alert.summary)),
            "{name} {}: firing",
            alert.severity
        );
    }
    let tests = text("dashboards/prometheus/darkport.rules.test.yml");
    for rule in rules::recorded() {
        assert!(
            tests.contains(&format!("- expr: {}\n", rule.name())),
            "{}",
            rule.name()
        );
    }
}

#[test]
fn the_readme_names_every_dashboard() {
    let readme = text("dashboards/README.md");
    for dashboard in dashboards() {
        let title = string(&dashboard.model["title"]);
        assert!(readme.contains(&format!("| {title} |")), "{title}");
    }
}

//! Dashboards, rules and alerts against a real Prometheus.
//!
//! One test has real exporters, listeners, knocks, a sweep and connections, for a minute; the other hours of history of five hosts
//! that never were, in every tier. Both ask every query of every panel, variable and annotation as Grafana asks it: none may be
//! an error, none more than its budget, and none empty but those named here with the reason.
//!
//! With `DARKPORT_PREVIEWS=DIR` the second one leaves its answers there, for tests/previews.

mod grafana;
mod stage;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use darkport_exporter::metrics::{FAMILIES, Family};
use serde_json::json;

use grafana::expand::Chosen;
use grafana::{Dashboard, dashboards, rules, string, text};
use stage::exporter::Exporter;
use stage::panels::{Answer, View, ask_all, ask_variables};
use stage::prometheus::{Prometheus, eventually};
use stage::remote_write::{self, Series};
use stage::simulation::Plan;

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64()
}

/// Asks every dashboard, for all hosts and for some, and gives the answers for all.
fn look_at_everything(
    prometheus: &Prometheus,
    view: &View,
    instances: &[String],
) -> Vec<(Dashboard, Vec<Answer>)> {
    let some = [
        Chosen::one(&instances[0]),
        Chosen::Values(instances.iter().take(2).cloned().collect()),
    ];
    for instance in some {
        let view = View {
            instance,
            job: Chosen::one("darkport"),
            ..view.clone()
        };
        for dashboard in dashboards() {
            ask_all(prometheus, &dashboard, &view);
        }
    }
    dashboards()
        .into_iter()
        .map(|dashboard| {
            ask_variables(prometheus, &dashboard, view);
            let answers = ask_all(prometheus, &dashboard, view);
            (dashboard, answers)
        })
        .collect()
}

/// The queries that have no answer.
fn empty(looked: &[(Dashboard, Vec<Answer>)]) -> BTreeSet<&str> {
    let answers = looked.iter().flat_map(|(_, answers)| answers);
    answers
        .filter(|answer| answer.series.is_empty())
        .map(|answer| answer.query.place.as_str())
        .collect()
}

#[test]
#[ignore = "needs prometheus"]
fn every_query_is_answered_from_a_simulated_day() {
    const STEP: i64 = 30_000;
    let scratch = tempfile::tempdir().expect("a directory");
    let recorded =
        Exporter::start("recorded", &["--collector.tier=polled"], scratch.path()).scrape();
    let prometheus = Prometheus::start("storage: {tsdb: {out_of_order_time_window: 1d}}", &[]);
    let to = now() as i64 * 1_000 / STEP * STEP;
    let plan = Plan {
        hosts: 5,
        from: to - 6 * 3_600_000,
        to,
        step: STEP,
    };
    let series: Vec<Series> = (0..plan.hosts)
        .flat_map(|host| plan.host(host, &recorded))
        .collect();
    write_in_order(&prometheus, &series, &plan);
    write_recorded(&prometheus, &plan);
    let view = View::of_all(
        plan.from as f64 / 1e3,
        plan.to as f64 / 1e3,
        STEP as f64 / 1e3,
        "79",
    );
    let instances = prometheus
        .label_values("up", "instance", view.from, view.to)
        .expect("instances");
    let looked = look_at_everything(&prometheus, &view, &instances);
    assert_eq!(empty(&looked), BTreeSet::new(), "without data");
    if let Some(directory) = std::env::var_os("DARKPORT_PREVIEWS") {
        for (dashboard, answers) in &looked {
            leave(std::path::Path::new(&directory), dashboard, answers, &view);
        }
    }
}

/// Prometheus takes what is at most an hour behind the newest it has, so all series advance together.
fn write_in_order(prometheus: &Prometheus, series: &[Series], plan: &Plan) {
    const SLICE: i64 = 1_800_000;
    let mut from = plan.from;
    while from <= plan.to {
        let slice: Vec<Series> = series
            .iter()
            .map(|one| Series {
                labels: one.labels.clone(),
                points: one
                    .points
                    .iter()
                    .copied()
                    .filter(|(time, _)| (from..from + SLICE).contains(time))
                    .collect(),
            })
            .filter(|one| !one.points.is_empty())
            .collect();
        remote_write::write(prometheus.address, &slice);
        from += SLICE;
    }
}

/// What the recording rules would have recorded.
fn write_recorded(prometheus: &Prometheus, plan: &Plan) {
    for rule in rules::recorded() {
        let answer = prometheus
            .range(
                &rule.expr,
                plan.from as f64 / 1e3,
                plan.to as f64 / 1e3,
                plan.step as f64 / 1e3,
            )
            .unwrap_or_else(|error| panic!("{}: {error}", rule.name()));
        let series: Vec<Series> = answer
            .into_iter()
            .map(|one| {
                let mut labels = one.labels;
                labels.insert("__name__".to_owned(), rule.name().to_owned());
                if !rule.kind.is_empty() {
                    labels.insert("kind".to_owned(), rule.kind.clone());
                }
                Series {
                    labels: labels.into_iter().collect(),
                    points: one
                        .points
                        .into_iter()
                        .map(|(time, value)| ((time * 1e3) as i64, value))
                        .collect(),
                }
            })
            .collect();
        assert!(!series.is_empty(), "{}: records nothing", rule.name());
        remote_write::write(prometheus.address, &series);
    }
}

/// Leaves the panels with their answers as JSON.
fn leave(directory: &std::path::Path, dashboard: &Dashboard, answers: &[Answer], view: &View) {
    let answers: Vec<_> = answers
        .iter()
        .map(|answer| {
            let series: Vec<_> = answer
                .series
                .iter()
                .map(|one| json!({"labels": one.labels, "points": one.points}))
                .collect();
            json!({"place": answer.query.place, "series": series})
        })
        .collect();
    let all =
        json!({"dashboard": dashboard.model, "from": view.from, "to": view.to, "answers": answers});
    std::fs::create_dir_all(directory).expect("a directory");
    std::fs::write(
        directory.join(format!("{}.json", dashboard.name)),
        all.to_string(),
    )
    .expect("written");
}

/// A running Prometheus with both exporters, rules and alerts; the alerts wait for nothing, because the test does not.
fn watching(exporters: &[&Exporter]) -> Prometheus {
    let targets: Vec<_> = exporters
        .iter()
        .map(|exporter| format!("'{}'", exporter.address))
        .collect();
    let configuration = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         storage: {{tsdb: {{out_of_order_time_window: 1d}}}}\n\
         rule_files: [rules.yml, alerts.yml]\n\
         scrape_configs: [{{job_name: darkport, static_configs: [{{targets: [{}]}}]}}]\n",
        targets.join(", ")
    );
    let alerts: Vec<String> = text("dashboards/prometheus/darkport.alerts.yml")
        .lines()
        .filter(|line| !line.trim_start().starts_with("for: "))
        .map(str::to_owned)
        .collect();
    let recording = text("dashboards/prometheus/darkport.rules.yml");
    Prometheus::start(
        &configuration,
        &[
            ("alerts.yml", &alerts.join("\n")),
            ("rules.yml", &recording),
        ],
    )
}

/// Says of the past hour that the port was dark, which this test cannot wait for.
fn an_hour_of_darkness(prometheus: &Prometheus, instances: &[String], port: u16) {
    let end = (now() * 1e3) as i64 - 45 * 60_000;
    let series: Vec<Series> = instances
        .iter()
        .map(|instance| Series {
            labels: [
                ("__name__", "darkport_listening"),
                ("instance", instance),
                ("job", "darkport"),
                ("port", &port.to_string()),
                ("protocol", "tcp"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            points: (0..30)
                .map(|minute| (end - (30 - minute) * 60_000, 0.0))
                .collect(),
        })
        .collect();
    remote_write::write(prometheus.address, &series);
}

/// Accepts on the port, and knocks and connects, until it is dropped.
struct Traffic {
    running: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Traffic {
    fn begin(listener: TcpListener) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let port = listener.local_addr().expect("an address").port();
        listener.set_nonblocking(true).expect("non-blocking");
        let accepting = {
            let running = Arc::clone(&running);
            std::thread::spawn(move || {
                let mut held = Vec::new();
                while running.load(Ordering::Relaxed) {
                    held.extend(listener.accept().ok());
                    // The oldest go, so that there are some open at any time.
                    if held.len() > 8 {
                        held.remove(0);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        };
        let calling = {
            let running = Arc::clone(&running);
            std::thread::spawn(move || {
                let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
                while running.load(Ordering::Relaxed) {
                    for dark in [7, 19, 513] {
                        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, dark));
                        let _ = udp.send_to(b"?", (Ipv4Addr::LOCALHOST, dark));
                    }
                    // Held until the other end goes, long enough for a look at the table.
                    if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                        let _ = stream.set_read_timeout(Some(Duration::from_millis(400)));
                        let _ = stream.read(&mut [0]);
                    }
                }
            })
        };
        Self {
            running,
            threads: vec![accepting, calling],
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.running.store(false, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .unwrap_or_else(|error| panic!("port {port}: {error}"))
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status();
    assert!(status.expect(program).success(), "{program} {arguments:?}");
}

/// Opens the port until every exporter has seen it, and closes it again.
fn come_and_go(port: u16, exporters: &[&Exporter]) {
    let listener = listen(port);
    let opened = format!("darkport_listener_opened_total{{port=\"{port}\",protocol=\"tcp\"}} 1");
    for exporter in exporters {
        eventually("the listener is seen", || {
            exporter
                .scrape()
                .contains(&opened)
                .then_some(())
                .ok_or_else(|| exporter.log())
        });
    }
    drop(listener);
}

/// Waits until all of these fire, each an alert, its severity and a port (or nothing).
fn await_alerts(prometheus: &Prometheus, wanted: &[(&str, &str, &str)]) {
    for (name, severity, port) in wanted {
        eventually(name, || {
            let firing = prometheus.firing()?;
            let fires = firing.iter().any(|labels| {
                let is = |label: &str, value: &str| {
                    labels.get(label).map_or("", String::as_str) == value
                };
                is("alertname", name) && is("severity", severity) && is("port", port)
            });
            fires
                .then_some(())
                .ok_or_else(|| format!("{severity} {port} does not fire; {firing:#?}"))
        });
    }
}

/// Queries without an answer in a minute in which this did not happen.
const DID_NOT_HAPPEN: [&str; 8] = [
    "exporter / Configuration and version / D", // none has a web configuration
    "exporter / Hosts that changed their tier / A",
    "exporter / Events lost by host / A",  // nothing was lost
    "exporter / Collectors that fail / A", // every collector works
    "exporter / Network namespaces not read / A", // there are no others
    "exporter / Suppressed series / A",    // far below the limits
    "fleet / Hosts that lose events / A",  // nothing was lost
    "port / Inside against outside / A",   // nobody probes
];

/// Whether an answer may be empty: nothing of the kind happened, or these tiers do not know of it.
fn explained(answer: &Answer, tiers: &[String; 2]) -> bool {
    let unknown = |tier: &str| !tiers.iter().any(|running| running == tier);
    let of_family = |metric: &str, family: &Family| {
        metric == family.name
            || metric.contains(&format!(":{}:", family.name.trim_end_matches("_total")))
    };
    let selectors = grafana::promql::selectors(&answer.expanded).expect("PromQL");
    DID_NOT_HAPPEN.contains(&answer.query.place.as_str())
        || selectors.iter().any(|selector| {
            let family = FAMILIES
                .iter()
                .find(|family| of_family(&selector.metric, family));
            family.is_some_and(|family| family.tiers.iter().all(|tier| unknown(tier.as_str())))
                || selector.matchers.iter().any(|(label, operator, value)| {
                    label == "tier" && operator == "=" && unknown(value)
                })
        })
}

#[test]
#[ignore = "needs root"]
fn dashboards_and_alerts_follow_what_happens_on_real_ports() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("darkport.yml");
    std::fs::write(&file, text("src/default.yml")).expect("a configuration");
    let best = Exporter::start("best", &[], scratch.path());
    let polled = Exporter::start(
        "polled",
        &[
            "--collector.tier=polled",
            "--collector.poll-interval=100ms",
            &format!("--config.file={}", file.display()),
        ],
        scratch.path(),
    );
    // Root may load the kernel's programs: a host on which they do not load would leave half of this untested.
    assert_eq!(best.tier(), "kernel", "{}", best.log());
    let instances = [best.address.to_string(), polled.address.to_string()];
    let prometheus = watching(&[&best, &polled]);
    let start = now();
    eventually("both are scraped", || {
        let up = prometheus.instant("sum(darkport_listening == 0) by (instance)", now())?;
        (up.len() == 2)
            .then_some(())
            .ok_or_else(|| prometheus.log())
    });
    // Before the first scrape there was no exporter.
    eventually("nothing fires when nothing has happened", || {
        let firing = prometheus.firing()?;
        firing
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{firing:#?}"))
    });
    an_hour_of_darkness(&prometheus, &instances, 79);

    come_and_go(70, &[&best, &polled]);
    let _nppmp = listen(3476);
    let _traffic = Traffic::begin(listen(79));
    run(
        "nmap",
        &[
            "-n",
            "-Pn",
            "-sS",
            "-T5",
            "--min-rate",
            "20000",
            "-p-",
            "127.0.0.1",
        ],
    );
    std::fs::write(&file, "watch: [{name: broken, prots: [1]}]").expect("a configuration");
    run("kill", &["-HUP", &polled.id().to_string()]);

    let wanted = [
        ("DarkportUnexpectedListener", "critical", "79"),
        ("DarkportUnexpectedListener", "warning", "3476"),
        ("DarkportListenerCameAndWent", "warning", "70"),
        ("DarkportOutboundConnection", "warning", "79"),
        ("DarkportConversationOnDarkPort", "critical", "79"),
        ("DarkportConfigReloadFailed", "warning", ""),
        ("DarkportSweep", "warning", ""),
    ];
    await_alerts(&prometheus, &wanted);
    let names: BTreeSet<String> = prometheus
        .firing()
        .expect("alerts")
        .iter()
        .filter_map(|labels| labels.get("alertname").cloned())
        .collect();
    let named: BTreeSet<String> = wanted
        .iter()
        .map(|(name, _, _)| (*name).to_owned())
        .collect();
    assert_eq!(names, named, "and no other alert fires");

    let tiers = [best.tier(), polled.tier()];
    let view = || View::of_all(start - 5.0, now(), 1.0, "79");
    // A rate needs two scrapes, and a recorded one two evaluations.
    let looked = eventually("every query has data", || {
        let looked = look_at_everything(&prometheus, &view(), &instances);
        let unexplained: Vec<_> = looked
            .iter()
            .flat_map(|(_, answers)| answers)
            .filter(|answer| answer.series.is_empty() && !explained(answer, &tiers))
            .map(|answer| answer.query.place.clone())
            .collect();
        if unexplained.is_empty() {
            Ok(looked)
        } else {
            Err(format!("tiers {tiers:?}: {unexplained:#?}"))
        }
    });
    let answers = looked
        .iter()
        .map(|(_, answers)| answers.len())
        .sum::<usize>();
    println!(
        "tiers {tiers:?}: {answers} queries, {} of them without data",
        empty(&looked).len()
    );

    drop(polled);
    await_alerts(&prometheus, &[("DarkportExporterDown", "critical", "")]);
    let down = dashboards()
        .iter()
        .flat_map(Dashboard::panel_queries)
        .find(|query| query.place == "overview / Hosts reporting / B")
        .expect("the panel");
    assert_eq!(view().ask(&prometheus, &down).series[0].points[0].1, 1.0);
}

#[test]
fn what_did_not_happen_are_queries_that_exist() {
    let places: BTreeSet<String> = dashboards()
        .iter()
        .flat_map(Dashboard::panel_queries)
        .map(|query| query.place)
        .collect();
    for place in DID_NOT_HAPPEN {
        assert!(places.contains(place), "{place}");
    }
    assert!(
        dashboards()
            .iter()
            .all(|dashboard| !string(&dashboard.model["title"]).is_empty())
    );
}

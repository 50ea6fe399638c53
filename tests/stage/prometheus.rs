//! A real Prometheus for the time of a test, and the questions Grafana asks it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http;

/// A running Prometheus; it ends with this value.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
    /// Configuration, rules and data.
    scratch: tempfile::TempDir,
}

/// One series of an answer.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970 and the value; one of an instant query.
    pub points: Vec<(f64, f64)>,
}

/// A port on loopback that nothing listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// Asks again and again until there is an answer; a minute is the end of patience.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if start.elapsed() > Duration::from_secs(60) => panic!("{what}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Prometheus {
    /// Starts one with this configuration, beside which `files` are laid.
    pub fn start(configuration: &str, files: &[(&str, &str)]) -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        for (name, text) in files.iter().chain(&[("prometheus.yml", configuration)]) {
            std::fs::write(scratch.path().join(name), text).expect("a file");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let at = |name: &str| scratch.path().join(name).display().to_string();
        let log = std::fs::File::create(at("log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("data")))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed");
        let prometheus = Self {
            child,
            address,
            scratch,
        };
        eventually("prometheus is ready", || {
            http::get(address, "/-/ready").map_err(|error| format!("{error}\n{}", prometheus.log()))
        });
        prometheus
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub fn instant(&self, query: &str, at: f64) -> Result<Vec<Series>, String> {
        self.ask("query", &[("query", query), ("time", &at.to_string())])
    }

    pub fn range(&self, query: &str, from: f64, to: f64, step: f64) -> Result<Vec<Series>, String> {
        let [from, to, step] = [from, to, step].map(|number| number.to_string());
        self.ask(
            "query_range",
            &[
                ("query", query),
                ("start", &from),
                ("end", &to),
                ("step", &step),
            ],
        )
    }

    /// The values of a label among the series of a selector.
    pub fn label_values(
        &self,
        selector: &str,
        label: &str,
        from: f64,
        to: f64,
    ) -> Result<Vec<String>, String> {
        let path = format!(
            "/api/v1/label/{label}/values?match[]={}&start={from}&end={to}",
            http::encoded(selector)
        );
        let data = data(&http::get(self.address, &path)?)?;
        Ok(data
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// The alerts that fire now: each its labels.
    pub fn firing(&self) -> Result<Vec<BTreeMap<String, String>>, String> {
        let data = data(&http::get(self.address, "/api/v1/alerts")?)?;
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        Ok(alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| labels(&alert["labels"]))
            .collect())
    }

    fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Vec<Series>, String> {
        let form: Vec<_> = parameters
            .iter()
            .map(|(key, value)| format!("{key}={}", http::encoded(value)))
            .collect();
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        let data = data(&http::post(
            self.address,
            &format!("/api/v1/{what}"),
            headers,
            form.join("&").as_bytes(),
        )?)?;
        let results = data["result"]
            .as_array()
            .ok_or("an answer without a result")?;
        Ok(results
            .iter()
            .map(|result| Series {
                labels: labels(&result["metric"]),
                points: match result["values"].as_array() {
                    Some(values) => values.iter().filter_map(point).collect(),
                    None => point(&result["value"]).into_iter().collect(),
                },
            })
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data(body: &str) -> Result<Value, String> {
    let mut answer: Value =
        serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    // A warning is an answer, but not one that a dashboard should be built on.
    if answer["status"] != "success" || answer.get("warnings").is_some() {
        return Err(body.to_owned());
    }
    Ok(answer["data"].take())
}

fn labels(metric: &Value) -> BTreeMap<String, String> {
    let object = metric.as_object().into_iter().flatten();
    object
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn point(value: &Value) -> Option<(f64, f64)> {
    Some((value[0].as_f64()?, value[1].as_str()?.parse().ok()?))
}

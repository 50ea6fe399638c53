//! The manifests for Kubernetes, as far as no other program is needed: `tests/kubernetes/run` renders and validates them.

use std::fs;

use crate::{accepted, path, text};

const DAEMON_SET: &str = "deploy/kubernetes/base/daemonset.yaml";
const RULES: &str = "deploy/kubernetes/components/servicemonitor/prometheusrule.yaml";

/// The items of the block list under a key, without their quotes.
fn items<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = text.lines();
    let indent = lines
        .find_map(|line| (line.trim() == key).then(|| line.len() - line.trim_start().len()))
        .unwrap_or_else(|| panic!("no {key}"));
    lines
        .take_while(|line| line.len() - line.trim_start().len() > indent)
        .filter_map(|line| line.trim().strip_prefix("- "))
        .collect()
}

#[test]
fn the_command_line_in_the_pod_is_one_that_the_exporter_takes() {
    let manifest = text(DAEMON_SET);
    let args = accepted(DAEMON_SET, &items(&manifest, "args:"));
    let configuration = args.config_file.expect("a configuration");
    let mounted = items(&manifest, "volumeMounts:");
    assert!(mounted.contains(&"name: configuration"), "{mounted:?}");
    assert!(manifest.contains(&format!(
        "mountPath: {}\n",
        configuration.parent().unwrap().display()
    )));
    let file = configuration.file_name().unwrap().to_str().unwrap();
    assert!(path("deploy/kubernetes/base").join(file).is_file());
    assert!(text("deploy/kubernetes/base/kustomization.yaml").contains(&format!("- {file}\n")));
    // What is probed and scraped is what it serves.
    for wanted in [
        "path: /-/ready,",
        "path: /-/healthy,",
        "containerPort: 10561",
    ] {
        assert!(manifest.contains(wanted), "{wanted}");
    }
    let listens = args.web.listen[0].to_string();
    assert_eq!(listens, ":10561");
}

#[test]
fn what_the_kustomizations_name_is_there() {
    for (folder, keys) in [
        ("deploy/kubernetes/base", &["resources:", "files:"][..]),
        (
            "deploy/kubernetes/components/servicemonitor",
            &["resources:"],
        ),
        ("deploy/kubernetes/example", &["resources:", "components:"]),
        ("tests/kubernetes/guarded", &["resources:", "components:"]),
    ] {
        let kustomization = text(&format!("{folder}/kustomization.yaml"));
        for key in keys {
            for name in items(&kustomization, key) {
                assert!(path(folder).join(name).exists(), "{folder}: {name}");
            }
        }
    }
    let dashboards = text("dashboards/kustomization.yaml");
    for entry in fs::read_dir(path("dashboards")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".json") {
            assert!(dashboards.contains(&format!("files: [{name}]")), "{name}");
        }
    }
}

/// The default configuration, to be changed in an overlay or in place.
#[test]
fn the_configuration_is_the_default() {
    is_held(
        "deploy/kubernetes/base/darkport.yml",
        &text("src/default.yml"),
    );
}

/// The rules and alerts as the Prometheus operator takes them.
#[test]
fn the_operator_is_given_the_same_rules() {
    let mut made = String::from(
        "# Made from dashboards/prometheus: UPDATE_GOLDEN=1 cargo test --test deploy\n",
    );
    for name in ["rules", "alerts"] {
        let source = text(&format!("dashboards/prometheus/darkport.{name}.yml"));
        let groups = source.split_once("\ngroups:\n").expect("groups").1;
        made.push_str(&format!(
            "---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: darkport-{name}\n  \
             labels:\n    app.kubernetes.io/name: darkport-exporter\nspec:\n  groups:\n"
        ));
        for line in groups.lines() {
            let indent = if line.is_empty() { "" } else { "  " };
            made.push_str(&format!("{indent}{line}\n"));
        }
    }
    is_held(RULES, &made);
}

fn is_held(file: &str, made: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), made).unwrap();
    }
    assert!(
        fs::read_to_string(path(file)).is_ok_and(|held| held == made),
        "{file} is not what it is made from: UPDATE_GOLDEN=1 cargo test --test deploy"
    );
}

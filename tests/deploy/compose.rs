//! deploy/compose: what it mounts and builds from lies in the repository.

use crate::{accepted, path, text};

const FOLDER: &str = "deploy/compose";

/// The service of this name, as far as the next.
fn service<'a>(file: &'a str, name: &str) -> &'a str {
    let rest = file
        .split_once(&format!("\n  {name}:\n"))
        .unwrap_or_else(|| panic!("no service {name}"))
        .1;
    let end = rest
        .match_indices("\n  ")
        .find(|(at, _)| !rest[at + 3..].starts_with([' ', '#']))
        .map_or(rest.len(), |(at, _)| at);
    &rest[..end]
}

#[test]
fn what_is_mounted_and_built_from_is_there() {
    let file = text(&format!("{FOLDER}/compose.yaml"));
    let relative = file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
        .map(|(source, _)| source)
        .filter(|source| source.starts_with('.'));
    let sources: Vec<&str> = relative.collect();
    assert!(sources.len() >= 4, "{sources:?}");
    for source in sources {
        assert!(path(FOLDER).join(source).exists(), "{source}");
    }
    let context = file
        .lines()
        .find_map(|line| line.trim().strip_prefix("context: "))
        .expect("a context to build from");
    assert!(path(FOLDER).join(context).join("Dockerfile").is_file());
}

#[test]
fn the_exporter_is_started_with_flags_that_it_takes() {
    let file = text(&format!("{FOLDER}/compose.yaml"));
    let exporter = service(&file, "exporter");
    assert!(exporter.contains("image: darkport_exporter"));
    let flags: Vec<&str> = exporter
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|item| item.starts_with("--"))
        .collect();
    let args = accepted(FOLDER, &flags);
    // Prometheus asks where it serves.
    let port = args.web.listen[0].to_string();
    assert!(text(&format!("{FOLDER}/prometheus.yml")).contains(&port));
}

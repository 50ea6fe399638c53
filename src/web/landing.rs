//! The landing page: what this is, how it is, and where to go on.

use std::fmt::Write as _;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;

use super::page::page;
use super::{Site, TelemetryPath};
use crate::api::Glance;
use crate::port::Port;

const PAGE: &str = include_str!("landing.html");

/// Nothing may be loaded, run, framed or sent; the one style sheet is told by its SHA-256.
const POLICY: &str = "default-src 'none'; style-src 'sha256-tWgGoG4UnG97ORiB2DgOLtdPbZumu5RuPO/N4aReZtA='; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Unexpected listeners that are named; the map has them all.
const NAMED: usize = 12;

/// The page as things are now.
pub(super) fn landing(site: &dyn Site, telemetry: &TelemetryPath) -> Response<Full<Bytes>> {
    let state = if site.is_ready() {
        "ready"
    } else {
        "not ready: no sample has been taken yet"
    };
    let glance = site.glance();
    let glance = glance.as_deref();
    let (mark, verdict) = verdict(glance);
    // What is put in is the program's own words, numbers, and a path that is checked to be plain: nothing of it needs
    // escaping, and nothing of it is a name from outside.
    let text = PAGE
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{tier}}", site.tier().as_str())
        .replace("{{state}}", state)
        .replace("{{telemetry}}", telemetry.as_str())
        .replace("{{mark}}", mark)
        .replace("{{verdict}}", &verdict)
        .replace("{{watched}}", &watched(glance))
        .replace("{{host}}", &host(glance))
        .replace("{{sampled}}", &sampled(glance))
        .replace("{{collectors}}", &collectors(glance));
    page(text, POLICY)
}

/// What matters most, and the class it is shown in.
fn verdict(glance: Option<&Glance>) -> (&'static str, String) {
    let Some(glance) = glance else {
        return ("unknown", "Nothing is known yet.".to_owned());
    };
    match glance.unexpected.as_deref() {
        None => (
            "unknown",
            "What listens could not be read. The log says why.".to_owned(),
        ),
        Some([]) if glance.watched == 0 => (
            "unknown",
            "No port is watched that could be unexpected.".to_owned(),
        ),
        Some([]) => (
            "silent",
            "Silent: no watched port has a listener that may not be there.".to_owned(),
        ),
        Some(ports) => ("lit", format!("Unexpected listeners: {}.", named(ports))),
    }
}

fn named(ports: &[Port]) -> String {
    let mut text = String::new();
    for (index, port) in ports.iter().take(NAMED).enumerate() {
        let joint = if index == 0 { "" } else { ", " };
        let _ = write!(text, "{joint}<a href=\"map#{port}\">{port}</a>");
    }
    if ports.len() > NAMED {
        let _ = write!(text, " and {} more", ports.len() - NAMED);
    }
    text
}

fn watched(glance: Option<&Glance>) -> String {
    let lit = glance.map(|glance| (glance.watched, glance.lit));
    match lit {
        None => "unknown".to_owned(),
        Some((watched, None)) => format!("{watched}, lit: unknown"),
        Some((watched, Some(lit))) => format!("{watched}, {lit} of them lit"),
    }
}

fn host(glance: Option<&Glance>) -> String {
    match glance.and_then(|glance| glance.lit_anywhere) {
        None => "unknown".to_owned(),
        Some([tcp, udp]) => format!("{tcp} TCP, {udp} UDP"),
    }
}

fn sampled(glance: Option<&Glance>) -> String {
    let Some(glance) = glance else {
        return "never".to_owned();
    };
    match glance.sampled_at.elapsed().unwrap_or_default().as_secs() {
        0 => "just now".to_owned(),
        seconds @ 1..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

fn collectors(glance: Option<&Glance>) -> String {
    let failing: Option<Vec<&str>> = glance.map(|glance| {
        let names = glance.failing.iter();
        names.map(|collector| collector.as_str()).collect()
    });
    match failing.as_deref() {
        None => "unknown".to_owned(),
        Some([]) => "all succeed".to_owned(),
        Some(failing) => format!("failing: {}", failing.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::page::tests::assert_named;

    #[test]
    fn the_policy_names_the_style_sheet_as_it_is() {
        assert_named(POLICY, PAGE, "style");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for loaded in [
            "<script", "<img", "<link", "url(", "http:", "https:", "style=", "@import",
        ] {
            assert!(!PAGE.contains(loaded), "{loaded}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_called_silent() {
        let glance = Glance {
            sampled_at: std::time::SystemTime::now(),
            watched: 3,
            lit: None,
            unexpected: None,
            lit_anywhere: None,
            failing: vec![crate::snapshot::Collector::Sockets],
        };
        assert_eq!(verdict(None).0, "unknown");
        assert_eq!(verdict(Some(&glance)).0, "unknown");
        assert_eq!(watched(Some(&glance)), "3, lit: unknown");
        assert_eq!(host(Some(&glance)), "unknown");
        assert_eq!(collectors(Some(&glance)), "failing: sockets");
        let seen = Glance {
            lit: Some(0),
            unexpected: Some(Vec::new()),
            ..glance.clone()
        };
        assert_eq!(verdict(Some(&seen)).0, "silent");
        let none = Glance { watched: 0, ..seen };
        assert_eq!(verdict(Some(&none)).0, "unknown");
    }

    #[test]
    fn unexpected_listeners_are_named_and_counted() {
        let ports: Vec<Port> = (1..=14).map(Port::udp).collect();
        let text = named(&ports);
        assert!(
            text.starts_with("<a href=\"map#1/udp\">1/udp</a>, "),
            "{text}"
        );
        assert!(
            text.contains("12/udp</a> and 2 more") && !text.contains("13/udp"),
            "{text}"
        );
    }
}

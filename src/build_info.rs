//! What this binary was built from.
//!
//! Revision, branch and date are facts of who builds, so they come from the environment of the build
//! (`DARKPORT_REVISION`, `DARKPORT_BRANCH`, `DARKPORT_BUILD_DATE`) and are `unknown` where it does not name them.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The revision of the source.
pub const REVISION: &str = or_unknown(option_env!("DARKPORT_REVISION"));
/// The branch of the source.
pub const BRANCH: &str = or_unknown(option_env!("DARKPORT_BRANCH"));
/// When it was built.
pub const BUILD_DATE: &str = or_unknown(option_env!("DARKPORT_BUILD_DATE"));
/// The version of the compiler; set by the build script.
pub const RUST_VERSION: &str = or_unknown(option_env!("DARKPORT_RUST_VERSION"));

/// The operating system, in the words of Prometheus' own exporters.
#[must_use]
pub fn goos() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor, in the words of Prometheus' own exporters.
#[must_use]
pub fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// What `--version` prints: the lines that Prometheus and its exporters print.
#[must_use]
pub fn version_text() -> String {
    format!(
        "darkport_exporter, version {VERSION} (branch: {BRANCH}, revision: {REVISION})\n  \
           build date:       {BUILD_DATE}\n  \
           rust version:     {RUST_VERSION}\n  \
           platform:         {}/{}\n",
        goos(),
        goarch()
    )
}

const fn or_unknown(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) if !value.is_empty() => value,
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_form_of_the_ecosystem() {
        let text = version_text();
        let first = format!(
            "darkport_exporter, version {VERSION} (branch: {BRANCH}, revision: {REVISION})"
        );
        assert_eq!(text.lines().next(), Some(first.as_str()));
        assert!(text.lines().skip(1).all(|line| line.starts_with("  ")));
        assert!(text.contains(&format!("platform:         {}/{}\n", goos(), goarch())));
    }

    #[test]
    fn the_build_script_tells_the_compiler() {
        assert!(RUST_VERSION.starts_with("1."), "{RUST_VERSION}");
    }
}

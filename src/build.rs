//! What this binary was built from.

/// The version, as in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit; empty where the build could not tell.
pub const REVISION: &str = match option_env!("DARKPORT_REVISION") {
    Some(revision) => revision,
    None => "",
};
/// The branch; empty where the build could not tell.
pub const BRANCH: &str = match option_env!("DARKPORT_BRANCH") {
    Some(branch) => branch,
    None => "",
};
/// The compiler.
pub const RUST_VERSION: &str = match option_env!("DARKPORT_RUST_VERSION") {
    Some(version) => version,
    None => "",
};

/// The operating system by Go's name, as all exporters of the ecosystem have it.
#[must_use]
pub fn goos() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor by Go's name.
#[must_use]
pub fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

//! What the service manager is told, systemd for one: that the exporter is ready, reads its configuration again, ends
//! (sd_notify(3)). A unit of `Type=notify` waits for it.
//!
//! Nobody has to listen: without NOTIFY_SOCKET in the environment nothing is sent. It knows nothing of what it tells of.

/// The first sample was taken: whoever waits for the exporter need wait no longer. `status` is shown to people.
pub fn ready(status: &str) {
    imp::ready(status);
}

/// The configuration is about to be read again; [`reloaded`] has to follow.
pub fn reloading() {
    imp::reloading();
}

/// The configuration was read again; `status` is shown to people.
pub fn reloaded(status: &str) {
    imp::ready(status);
}

/// The end was asked for.
pub fn ending() {
    imp::ending();
}

#[cfg(target_os = "linux")]
mod imp {
    use sd_notify::NotifyState;

    pub(super) fn ready(status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(one_line(status))]);
    }

    pub(super) fn reloading() {
        // systemd 253 and newer want to know when: a message from before the request would not count.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "there is no monotonic clock"),
        }
    }

    pub(super) fn ending() {
        tell(&[NotifyState::Stopping]);
    }

    /// A line break would begin a message of its own.
    fn one_line(status: &str) -> &str {
        status.lines().next().unwrap_or_default()
    }

    fn tell(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager cannot be told: NOTIFY_SOCKET names a socket that does not answer");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) fn ready(_: &str) {}

    pub(super) fn reloading() {}

    pub(super) fn ending() {}
}

//! Signals: SIGTERM and SIGINT end the exporter, SIGHUP has it read its configuration again.
//!
//! Handlers stand from the moment these functions return, so a signal that comes before anyone waits is not lost. This
//! module knows nothing of what is ended or read again. Both functions need a Tokio runtime around them.

use std::future::Future;
use std::io;

/// The end of the run: completes with the name of the signal that asked for it.
///
/// # Errors
/// When the operating system refuses a handler.
#[cfg(unix)]
pub fn shutdown() -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// The end of the run: completes with the name of what asked for it.
///
/// # Errors
/// When the operating system refuses a handler.
#[cfg(windows)]
pub fn shutdown() -> io::Result<impl Future<Output = &'static str> + Send> {
    use tokio::signal::windows::{ctrl_c, ctrl_shutdown};

    let mut interrupt = ctrl_c()?;
    let mut shutdown = ctrl_shutdown()?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "CTRL-C",
            _ = shutdown.recv() => "CTRL-SHUTDOWN",
        }
    })
}

/// Requests to read the configuration again.
#[derive(Debug)]
pub struct Reloads {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

/// Listens for SIGHUP. Where there is no such signal, no request ever comes.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn reloads() -> io::Result<Reloads> {
    Ok(Reloads {
        #[cfg(unix)]
        hangup: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
    })
}

impl Reloads {
    /// Waits for the next request. Requests that come while none is awaited count as one. Cancelling loses nothing.
    pub async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangup.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

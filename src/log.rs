//! The log: set-up of tracing, one line an event, to standard error.
//!
//! Knows levels, formats and how a line gets out; knows nothing of what is told. A standard error that is closed, full or
//! read by nobody costs lines, never a scrape.

use std::fmt;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

mod limiter;
mod line;
mod once_per;
mod sink;

pub use limiter::Limiter;
pub(crate) use line::rfc3339;
pub use once_per::OncePer;
use sink::Sink;

/// The least level that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every request and every connection.
    Debug,
    /// What an operator wants in the journal.
    #[default]
    Info,
    /// What needs a look.
    Warn,
    /// What is broken.
    Error,
}

impl Level {
    /// All levels, from the most talkative.
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The name as it stands on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    const fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| ParseError::Level(text.to_owned()))
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value`, quoted as a JSON string where need be.
    #[default]
    Logfmt,
    /// One flat object a line.
    Json,
}

impl Format {
    /// Both formats.
    pub const ALL: [Self; 2] = [Self::Logfmt, Self::Json];

    /// The name as it stands on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| ParseError::Format(text.to_owned()))
    }
}

/// What is wrong with the name of a level or a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such level.
    #[error("{0:?} is not a log level: write debug, info, warn or error")]
    Level(String),
    /// No such format.
    #[error("{0:?} is not a log format: write logfmt or json")]
    Format(String),
}

/// An error with what caused it, in one line.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was set up before.
    #[error("the log is set up already")]
    Again,
    /// No thread to write it.
    #[error("no thread for the log: {0}")]
    Thread(io::Error),
}

/// Keeps the end of the log from being lost: dropped, it waits for lines still on their way, one second at most.
#[derive(Debug)]
#[must_use = "dropped at once, it can wait for nothing"]
pub struct Guard(Sink);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Sets up the log of the process, and has panics told in it rather than beside it.
///
/// # Errors
/// When there is a log already, or no thread for one.
pub fn init(level: Level, format: Format) -> Result<Guard, Error> {
    let sink =
        Sink::start(io::stderr(), move |count| dropped(format, count)).map_err(Error::Thread)?;
    let lines = Lines {
        format,
        sink: sink.clone(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(level.filter()));
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Again)?;
    panic::set_hook(Box::new(tell_panic));
    Ok(Guard(sink))
}

/// Turns events into lines.
struct Lines {
    format: Format,
    sink: Sink,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.sink
            .put(line::of_event(self.format, SystemTime::now(), event));
    }
}

fn dropped(format: Format, count: u64) -> String {
    line::line(
        format,
        SystemTime::now(),
        tracing::Level::WARN,
        None,
        "log lines dropped: standard error did not take them",
        vec![("dropped", line::Value::Plain(count.to_string()))],
    )
}

fn tell_panic(info: &PanicHookInfo<'_>) {
    // A scrape that panics can be asked for again and again.
    static PANICS: Limiter = Limiter::new(10, Duration::from_secs(60));
    let Some(left_out) = PANICS.admit() else {
        return;
    };
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        location = info.location().map(tracing::field::display),
        reason = info.payload_as_str(),
        left_out,
        "panicked, which is a defect: please report it"
    );
}

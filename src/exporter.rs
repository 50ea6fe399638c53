//! The exporter: one configuration, one sampler, and what may be asked of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::config::{self, Config};
use crate::counts::Tier;
use crate::log::Limiter;
use crate::metrics;
use crate::probe::{self, Prober};
use crate::sampler::Sampler;
use crate::snapshot::Reload;

/// What runs behind the web front.
#[derive(Debug)]
pub struct Exporter {
    /// The configuration file; `None`: the embedded default.
    file: Option<PathBuf>,
    config: ArcSwap<Config>,
    tier: Tier,
    sampling: Mutex<Sampling>,
    prober: Prober,
    ready: AtomicBool,
}

/// What one sample at a time may use.
#[derive(Debug)]
struct Sampling {
    sampler: Sampler,
    reload: Reload,
}

impl Exporter {
    /// An exporter of this configuration, which was read from `file`.
    #[must_use]
    pub fn new(file: Option<PathBuf>, config: Config, sampler: Sampler) -> Self {
        Self {
            file,
            config: ArcSwap::from_pointee(config),
            tier: sampler.counts().tier(),
            sampling: Mutex::new(Sampling {
                sampler,
                reload: Reload {
                    successful: true,
                    at: SystemTime::now(),
                },
            }),
            prober: Prober::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// Samples once and encodes the answer to a scrape in Prometheus' text format 0.0.4. Blocks: call it off the async
    /// threads.
    ///
    /// # Errors
    /// When the snapshot cannot be encoded.
    pub fn scrape(&self) -> Result<String, metrics::Error> {
        let mut sampling = self.sampling();
        // Under the lock, so that the sampler watches what this configuration says.
        let config = self.config.load_full();
        let snapshot = sampling.sample(&config);
        drop(sampling);
        self.ready.store(true, Ordering::Release);
        metrics::encode(&snapshot)
    }

    /// Probes as the configuration of this moment allows, and encodes the answer in Prometheus' text format 0.0.4. Has
    /// nothing to do with the sampler: neither waits for the other.
    ///
    /// # Errors
    /// When the request is refused or cannot be served.
    pub async fn probe(&self, request: probe::Request) -> Result<String, ProbeError> {
        let config = self.config.load_full();
        let (target, module) = (request.target.clone(), request.module.clone());
        let encode = move |report: probe::Report| {
            tell_hindrance(&target, &module, &report);
            metrics::encode_probe(&report)
        };
        let encoded = self.prober.probe(&config.probe, request, encode).await?;
        Ok(encoded?)
    }

    /// Samples once and shows it to nobody: the polled tier counts by it, and the first sample makes ready. Blocks as
    /// [`scrape`](Self::scrape) does.
    pub fn tick(&self) {
        let mut sampling = self.sampling();
        let config = self.config.load_full();
        drop(sampling.sample(&config));
        drop(sampling);
        self.ready.store(true, Ordering::Release);
    }

    /// Loads the configuration file anew. A bad one leaves everything as it was. Blocks as [`scrape`](Self::scrape) does.
    ///
    /// # Errors
    /// When the file is refused; every problem is in the error.
    pub fn reload(&self) -> Result<(), config::Error> {
        let loaded = match &self.file {
            Some(file) => Config::load(file),
            None => Ok(Config::embedded()),
        };
        let mut sampling = self.sampling();
        match loaded {
            Ok(config) => {
                sampling.sampler.watch(config.watch.ports());
                sampling.reload = Reload {
                    successful: true,
                    at: SystemTime::now(),
                };
                self.config.store(Arc::new(config));
                Ok(())
            }
            Err(error) => {
                sampling.reload.successful = false;
                Err(error)
            }
        }
    }

    /// Whether a first sample was taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The tier in use.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// A sample that panicked has left its counters as they were; the next one goes on from there.
    fn sampling(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a probe has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It was refused, or could not be made.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// What it found could not be encoded.
    #[error(transparent)]
    Encode(#[from] metrics::Error),
}

/// Says why something could not be asked. Each probe may have such a reason, and probes are asked for from outside.
fn tell_hindrance(target: &str, module: &str, report: &probe::Report) {
    static HINDRANCES: Limiter = Limiter::new(10, Duration::from_secs(60));

    if let Some(reason) = &report.hindrance
        && let Some(left_out) = HINDRANCES.admit()
    {
        tracing::warn!(
            target_host = target,
            module,
            reason,
            left_out,
            "probe incomplete"
        );
    }
}

impl Sampling {
    fn sample<'a>(&mut self, config: &'a Config) -> crate::snapshot::Snapshot<'a> {
        self.sampler.sample(config, self.reload, SystemTime::now())
    }
}

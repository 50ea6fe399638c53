//! The exporter: one configuration, one sampler, and what may be asked of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::api::{self, Document, Glance};
use crate::config::{self, Config};
use crate::counts::Tier;
use crate::log::Limiter;
use crate::metrics;
use crate::probe::{self, Prober};
use crate::refusals::Refusals;
use crate::sampler::Sampler;
use crate::snapshot::{Reload, Snapshot};
use crate::sockets;

/// How long a sample is shown to everybody who looks at the ports: however many look, one second costs one sample.
const SHARED_FOR: Duration = Duration::from_secs(1);

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
    glance: ArcSwapOption<Glance>,
    shown: Mutex<Shown>,
    refusals: Arc<Refusals>,
    /// Held while a reload is under way.
    reloading: Mutex<()>,
}

/// What was last shown to those who look at the ports.
#[derive(Debug, Default)]
struct Shown {
    /// When it was sampled, and what it says.
    live: Option<(Instant, Document)>,
    /// The configuration it is about, and what that says of the ports.
    facts: Option<(Arc<Config>, Document)>,
}

/// Why a configuration was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is refused; the text has every problem, one a line.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The socket table could not be read, by which what is open on newly watched ports is told from what opens next.
    #[error("the configuration is good, but its ports cannot be watched yet; try again: {0}")]
    Sockets(#[from] sockets::Error),
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
            glance: ArcSwapOption::empty(),
            shown: Mutex::default(),
            refusals: Arc::default(),
            reloading: Mutex::default(),
        }
    }

    /// Where the web front counts what it turns away.
    #[must_use]
    pub const fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// The configuration in use.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
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
        let mut snapshot = sampling.sample(&config);
        drop(sampling);
        snapshot.web = self.refusals.now();
        self.taken(&snapshot);
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
        let snapshot = sampling.sample(&config);
        drop(sampling);
        self.taken(&snapshot);
    }

    /// What listens and what was counted, as [`api::live`] writes it, from a sample at most a second old that is shared by
    /// all who ask. Blocks as [`scrape`](Self::scrape) does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn ports(&self) -> Result<Document, api::Error> {
        // Held while the sample is taken: whoever asks meanwhile waits for the same one.
        let mut shown = self.shown();
        if let Some((at, live)) = &shown.live
            && at.elapsed() < SHARED_FOR
        {
            return Ok(live.clone());
        }
        let mut sampling = self.sampling();
        let config = self.config.load_full();
        let snapshot = sampling.sample(&config);
        let knocked = sampling.sampler.counts().knocked();
        let events: Vec<_> = sampling
            .sampler
            .last_events()
            .map(|(port, event)| (port, event.clone()))
            .collect();
        drop(sampling);
        let at = Instant::now();
        self.taken(&snapshot);
        let facts = shown.facts(&config)?;
        let now = SystemTime::now();
        let live = api::live(&snapshot, now, knocked.as_ref(), &events, &facts.id)?;
        shown.live = Some((at, live.clone()));
        Ok(live)
    }

    /// What is known of each port beforehand, as [`api::facts`] writes it. Blocks while it is worked out, once for each
    /// configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn facts(&self) -> Result<Document, api::Error> {
        let config = self.config.load_full();
        self.shown().facts(&config)
    }

    /// What the last sample came to; `None` before the first one.
    #[must_use]
    pub fn glance(&self) -> Option<Arc<Glance>> {
        self.glance.load_full()
    }

    fn taken(&self, snapshot: &Snapshot<'_>) {
        let glance = Glance::of(snapshot, SystemTime::now());
        self.glance.store(Some(Arc::new(glance)));
        self.ready.store(true, Ordering::Release);
    }

    /// Loads the configuration file anew. A bad one leaves everything as it was. Blocks as [`scrape`](Self::scrape) does.
    ///
    /// # Errors
    /// When the file is refused, with every problem; or when the socket table could not be read.
    pub fn reload(&self) -> Result<(), ReloadError> {
        // One after the other, so that the newest file is the one in use.
        let _turn = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let loaded = match &self.file {
            Some(file) => Config::load(file),
            None => Ok(Config::embedded()),
        };
        let mut sampling = self.sampling();
        let reloaded = loaded.map_err(ReloadError::from).and_then(|config| {
            sampling.sampler.watch(config.watch.ports())?;
            Ok(config)
        });
        match reloaded {
            Ok(config) => {
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

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sample that panicked has left its counters as they were; the next one goes on from there.
    fn sampling(&self) -> MutexGuard<'_, Sampling> {
        self.sampling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn facts(&mut self, config: &Arc<Config>) -> Result<Document, api::Error> {
        if let Some((of, facts)) = &self.facts
            && Arc::ptr_eq(of, config)
        {
            return Ok(facts.clone());
        }
        let facts = api::facts(config)?;
        self.facts = Some((Arc::clone(config), facts.clone()));
        Ok(facts)
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
    fn sample<'a>(&mut self, config: &'a Config) -> Snapshot<'a> {
        self.sampler.sample(config, self.reload, SystemTime::now())
    }
}

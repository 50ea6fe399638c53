//! The prober: takes requests, and answers with reports.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::allowed::NotAllowed;
use super::bucket::Bucket;
use super::lane::Bounds;
use super::module::Module;
use super::report::{Findings, Report};
use super::shared::{Run, Runs};
use super::target::{BadTarget, Target};

/// Sockets at a time, where descriptors allow it.
const MOST_SOCKETS: usize = 4096;
/// Names that are resolved at a time.
const RESOLVERS: usize = 4;

/// What somebody wants probed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who.
    pub target: String,
    /// The name of the module that says what.
    pub module: String,
    /// How long there is. What is not finished then is absent.
    pub time: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration allows nobody.
    #[error("nobody may be probed: list networks in probe.targets of the configuration")]
    NobodyAllowed,
    /// No such module.
    #[error("unknown module {0:?}: probe.modules of the configuration has {1}")]
    UnknownModule(String, String),
    /// Not a host.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// The name has no address to ask.
    #[error("{target} cannot be resolved: {error}")]
    Resolve {
        /// The name.
        target: Target,
        /// What the resolver said.
        error: io::Error,
    },
    /// An address that may not be asked.
    #[error("{target} may not be probed: {why}")]
    NotAllowed {
        /// The target as it was given.
        target: Target,
        /// Which address, and why.
        why: NotAllowed,
    },
    /// No thread to ask from.
    #[error("cannot start the thread that probes: {0}")]
    Thread(io::Error),
    /// A person has had enough (SIGINT).
    #[error("interrupted")]
    Interrupted,
    /// The run ended by a defect, or because the process ends.
    #[error("the probe was cut off")]
    CutOff,
}

/// Asks on behalf of all who want something probed.
#[derive(Debug, Default)]
pub struct Prober {
    /// Started with the first request: most exporters never probe.
    engine: Mutex<Option<Arc<Engine>>>,
}

impl Prober {
    /// Probes what may be probed, and hands the report to `then`, which is called off the caller's threads too. How many are
    /// under way is for the caller to bound.
    ///
    /// # Errors
    /// When the request is refused, or cannot be served.
    pub async fn probe<T: Send + 'static>(
        &self,
        settings: &Settings,
        request: Request,
        then: impl FnOnce(Report) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let start = Instant::now();
        if settings.targets.is_empty() {
            return Err(Error::NobodyAllowed);
        }
        let module = module(settings, &request.module)?;
        let target: Target = request.target.parse()?;
        let engine = self.engine(Standing::Behind)?;
        let settings = settings.clone();
        let deadline = start + request.time;
        let handle = engine.runtime().clone();
        let work = handle.spawn(async move {
            let report = engine
                .serve(&settings, target, &module, start, deadline)
                .await?;
            Ok(then(report))
        });
        // Whoever hangs up wants no answer.
        let _until_dropped = AbortOnDrop(work.abort_handle());
        work.await.map_err(|_| Error::CutOff)?
    }

    /// Probes whatever a person at a terminal wants probed, without a list of who may be, and shows how far it is: `watch`
    /// is called with the findings several times a second. Blocks.
    ///
    /// # Errors
    /// When the target cannot be resolved, when there is no thread to ask from, or when the person interrupts it.
    pub fn probe_freely(
        &self,
        target: &Target,
        module: &Arc<Module>,
        mut watch: impl FnMut(&Findings),
    ) -> Result<Report, Error> {
        const INTERVAL: Duration = Duration::from_millis(100);
        let start = Instant::now();
        let addresses = target
            .resolve(module.preference)
            .map_err(|error| Error::Resolve {
                target: target.clone(),
                error,
            })?;
        let engine = self.engine(Standing::Equal)?;
        let run = engine.start(addresses, module, module.rate);
        engine.runtime().block_on(async {
            let mut interrupt = pin!(tokio::signal::ctrl_c());
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                tokio::select! {
                    () = run.end() => return Ok(()),
                    _ = ticks.tick() => watch(&run.findings),
                    // Where it cannot be listened for, it ends the process by itself.
                    Ok(()) = &mut interrupt => return Err(Error::Interrupted),
                }
            }
        })?;
        watch(&run.findings);
        Ok(run.findings.report(module, start.elapsed()))
    }

    fn engine(&self, standing: Standing) -> Result<Arc<Engine>, Error> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(Arc::clone(engine));
        }
        let started = Arc::new(Engine::start_up(standing).map_err(Error::Thread)?);
        *engine = Some(Arc::clone(&started));
        Ok(started)
    }
}

fn module(settings: &Settings, name: &str) -> Result<Arc<Module>, Error> {
    settings.modules.get(name).map(Arc::clone).ok_or_else(|| {
        let known: Vec<&str> = settings.modules.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let named: String = name.chars().take(63).collect();
        Error::UnknownModule(named, known)
    })
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who goes first where processors are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Everybody alike: nothing else is done here.
    Equal,
    /// Scrapes go first.
    Behind,
}

/// What asks: threads of its own, the bounds of the process, and the runs under way.
#[derive(Debug)]
struct Engine {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: tokio::runtime::Handle,
    bounds: Arc<Bounds>,
    /// By the name of the module.
    buckets: Mutex<HashMap<String, Arc<Bucket>>>,
    runs: Runs,
}

impl Engine {
    fn start_up(standing: Standing) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads())
            .max_blocking_threads(RESOLVERS)
            .thread_name("probe")
            .on_thread_start(move || {
                if standing == Standing::Behind {
                    step_behind();
                }
            })
            .enable_all()
            .build()?;
        let bounds = Bounds {
            all: Bucket::default(),
            sockets: Semaphore::new(room()),
        };
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            bounds: Arc::new(bounds),
            buckets: Mutex::default(),
            runs: Runs::default(),
        })
    }

    const fn runtime(&self) -> &tokio::runtime::Handle {
        &self.handle
    }

    async fn serve(
        &self,
        settings: &Settings,
        target: Target,
        module: &Arc<Module>,
        start: Instant,
        deadline: Instant,
    ) -> Result<Report, Error> {
        let Ok(addresses) = timeout_at(deadline, self.resolve(&target, module)).await else {
            let mut report = Report::empty(module, start.elapsed());
            report.hindrance = Some(format!("{target} was not resolved in time"));
            return Ok(report);
        };
        let addresses = addresses?;
        for address in &addresses {
            settings
                .targets
                .check(address.ip())
                .map_err(|why| Error::NotAllowed {
                    target: target.clone(),
                    why,
                })?;
        }
        let run = self.runs.join(&addresses, module, || {
            self.start(addresses.clone(), module, settings.rate())
        });
        let _ = timeout_at(deadline, run.end()).await;
        Ok(run.findings.report(module, start.elapsed()))
    }

    async fn resolve(
        &self,
        target: &Target,
        module: &Arc<Module>,
    ) -> Result<Vec<SocketAddr>, Error> {
        let error = |error| Error::Resolve {
            target: target.clone(),
            error,
        };
        if let Target::Address(_) = target {
            return target.resolve(module.preference).map_err(error);
        }
        let (wanted, preference) = (target.clone(), module.preference);
        let work = self
            .handle
            .spawn_blocking(move || wanted.resolve(preference));
        let _until_dropped = AbortOnDrop(work.abort_handle());
        work.await.map_err(|_| Error::CutOff)?.map_err(error)
    }

    fn start(&self, addresses: Vec<SocketAddr>, module: &Arc<Module>, rate: u32) -> Run {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_full());
        let bucket = Arc::clone(buckets.entry(module.name.clone()).or_default());
        drop(buckets);
        Run::start(&self.handle, &self.bounds, bucket, module, addresses, rate)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be dropped by an async thread, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// Threads that ask. What a question costs is what the system does for it, which two processors do in less time than one.
fn threads() -> usize {
    const MOST: usize = 2;
    std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST))
}

/// Lets every other thread of the process go first. Where it cannot, all are alike.
fn step_behind() {
    // Of the calling thread alone on Linux, of the whole process elsewhere (setpriority(2)).
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 10);
}

/// A quarter of the descriptors the process may open, [`MOST_SOCKETS`] at most: the web front and the readers need theirs.
fn room() -> usize {
    #[cfg(target_os = "linux")]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = limit.map_or(MOST_SOCKETS, |limit| {
            usize::try_from(limit / 4).unwrap_or(MOST_SOCKETS)
        });
        quarter.clamp(1, MOST_SOCKETS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        MOST_SOCKETS / 16
    }
}

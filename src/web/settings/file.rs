//! A web configuration that is in use: looked after while the exporter runs, so that a renewed certificate or another user
//! counts without a restart.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::Settings;
use super::sources::Sources;
use crate::yaml::Error;

/// How old what is known of the files may be when somebody comes.
const AGE: Duration = Duration::from_secs(1);
/// How long somebody who comes waits for the files.
const PATIENCE: Duration = Duration::from_secs(1);

/// A web configuration's file and the last good [`Settings`] that were in it.
#[derive(Debug)]
pub struct SettingsFile {
    path: PathBuf,
    current: ArcSwap<Settings>,
    known: Mutex<Known>,
    is_in_use: AtomicBool,
    /// When the files were last looked at; locked while they are.
    looked: Arc<tokio::sync::Mutex<Instant>>,
}

/// What the files were when they were last read, and what is wrong with them, if anything is.
#[derive(Debug)]
struct Known {
    sources: Sources,
    problem: Option<Arc<str>>,
}

impl SettingsFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it is refused, with every problem in it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let (sources, settings) = Settings::read(path);
        Ok(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(settings?),
            known: Mutex::new(Known {
                sources,
                problem: None,
            }),
            is_in_use: AtomicBool::new(true),
            looked: Arc::new(tokio::sync::Mutex::new(Instant::now())),
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last good settings, as they were when the files were last looked at.
    #[must_use]
    pub fn current(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Whether the file, as it was when it was last looked at, is what is in use.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.is_in_use.load(Ordering::Relaxed)
    }

    /// The settings as they stand in the files, which are looked at if nobody did within a second. Where that takes too
    /// long, the last good ones.
    pub(in crate::web) async fn fresh(self: &Arc<Self>) -> Arc<Settings> {
        let look = async {
            let mut looked = Arc::clone(&self.looked).lock_owned().await;
            if looked.elapsed() < AGE {
                return;
            }
            let file = Arc::clone(self);
            // The lock goes with the work, so that files that do not answer are asked by one thread and no more.
            let _ = tokio::task::spawn_blocking(move || {
                let _ = file.refresh();
                *looked = Instant::now();
            })
            .await;
        };
        let _ = timeout(PATIENCE, look).await;
        self.current()
    }

    /// Looks at the files now, and takes them up if they have changed and are good. Blocks.
    ///
    /// # Errors
    /// What is wrong with them. Then the last good settings stay; this is told in the log, once.
    pub fn refresh(&self) -> Result<(), Arc<str>> {
        let mut known = self.known();
        if !known.sources.are_unchanged() {
            let (sources, settings) = Settings::read(&self.path);
            known.sources = sources;
            let problem = match settings {
                Ok(settings) => self.take_up(settings).err(),
                Err(error) => Some(error.to_string().into()),
            };
            if let Some(problem) = &problem
                && known.problem.as_ref() != Some(problem)
            {
                tracing::error!(
                    error = &**problem,
                    "web configuration refused; the one before stays in use"
                );
            }
            self.is_in_use.store(problem.is_none(), Ordering::Relaxed);
            known.problem = problem;
        }
        known.problem.clone().map_or(Ok(()), Err)
    }

    fn take_up(&self, settings: Settings) -> Result<(), Arc<str>> {
        if settings.has_tls() != self.current.load().has_tls() {
            let switched = if settings.has_tls() { "on" } else { "off" };
            return Err(format!(
                "{}: tls_server_config: TLS would be switched {switched}, which only a restart does",
                self.path.display()
            )
            .into());
        }
        tracing::info!(file = %self.path.display(), users = settings.users(), "web configuration loaded anew");
        self.current.store(Arc::new(settings));
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

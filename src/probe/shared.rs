//! Runs, and who waits for them: whoever asks for what is being asked already waits for the same run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::bucket::Bucket;
use super::lane::{Bounds, Job, Lane};
use super::module::Module;
use super::report::Findings;
use crate::port::{Port, Protocol};

/// A run under way. It ends when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) findings: Arc<Findings>,
    module: Arc<Module>,
    /// Its sender is dropped at the end.
    ended: watch::Receiver<()>,
    task: AbortHandle,
}

impl Run {
    /// Begins to ask. `rate` is that of all modules together.
    pub(super) fn start(
        runtime: &Handle,
        bounds: &Arc<Bounds>,
        bucket: Arc<Bucket>,
        module: &Arc<Module>,
        addresses: Vec<SocketAddr>,
        rate: u32,
    ) -> Self {
        let ports: Arc<[Port]> = module.ports.iter().collect();
        let findings = Arc::new(Findings::new(addresses, ports));
        let job = Arc::new(Job {
            module: Arc::clone(module),
            findings: Arc::clone(&findings),
            bounds: Arc::clone(bounds),
            bucket,
            rate,
            places: Semaphore::new(module.concurrency().get() as usize),
        });
        let (end, ended) = watch::channel(());
        let task = runtime.spawn(async move {
            ask(&job).await;
            drop(end);
        });
        Self {
            findings,
            module: Arc::clone(module),
            ended,
            task: task.abort_handle(),
        }
    }

    /// Waits for the end.
    pub(super) async fn end(&self) {
        // An error is the end: nothing is ever sent.
        let _ = self.ended.clone().changed().await;
    }

    fn is_under_way(&self) -> bool {
        self.ended.has_changed().is_ok()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(job: &Arc<Job>) {
    let mut lanes = JoinSet::new();
    for address in 0..job.findings.addresses().len() {
        for protocol in Protocol::ALL {
            let of_protocol = |&index: &usize| job.findings.ports()[index].protocol == protocol;
            let ports: Vec<usize> = (0..job.findings.ports().len())
                .filter(of_protocol)
                .collect();
            let lane = Lane {
                job: Arc::clone(job),
                address,
                protocol,
                pace: Mutex::default(),
            };
            lanes.spawn(Arc::new(lane).run(ports));
        }
    }
    while lanes.join_next().await.is_some() {}
}

/// Who is asked, and by the module of which name.
type Question = (Vec<SocketAddr>, String);

/// The runs under way, by whom they ask and the name of what.
#[derive(Debug, Default)]
pub(super) struct Runs {
    by: Mutex<HashMap<Question, Weak<Run>>>,
}

impl Runs {
    /// The run that asks this already, or a new one.
    pub(super) fn join(
        &self,
        addresses: &[SocketAddr],
        module: &Arc<Module>,
        start: impl FnOnce() -> Run,
    ) -> Arc<Run> {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        by.retain(|_, run| run.strong_count() > 0);
        let key = (addresses.to_vec(), module.name.clone());
        if let Some(run) = by.get(&key).and_then(Weak::upgrade)
            && run.is_under_way()
            // After a reload the name may stand for something else.
            && Arc::ptr_eq(&run.module, module)
        {
            return run;
        }
        let run = Arc::new(start());
        by.insert(key, Arc::downgrade(&run));
        run
    }
}

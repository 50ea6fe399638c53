//! What a run has found, while it goes on and afterwards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::finding::Finding;
use super::module::Module;
use crate::port::Port;

/// What a run has found so far.
#[derive(Debug)]
pub struct Findings {
    addresses: Vec<SocketAddr>,
    ports: Arc<[Port]>,
    /// By address, then port.
    cells: Mutex<Vec<Option<Finding>>>,
    finished: AtomicUsize,
    /// Why something could not be asked; the first reason is kept.
    hindrance: Mutex<Option<String>>,
}

impl Findings {
    pub(super) fn new(addresses: Vec<SocketAddr>, ports: Arc<[Port]>) -> Self {
        let cells = vec![None; addresses.len() * ports.len()];
        Self {
            addresses,
            ports,
            cells: Mutex::new(cells),
            finished: AtomicUsize::new(0),
            hindrance: Mutex::new(None),
        }
    }

    /// How many questions have their answer, or never will.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    /// How many questions there are.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.addresses.len() * self.ports.len()
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn ports(&self) -> &Arc<[Port]> {
        &self.ports
    }

    pub(super) fn put(&self, address: usize, port: usize, finding: Finding) {
        let mut cells = lock(&self.cells);
        if let Some(cell) = cells.get_mut(address * self.ports.len() + port) {
            *cell = Some(finding);
        }
        drop(cells);
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn give_up(&self, port: Port, address: SocketAddr, error: &std::io::Error) {
        lock(&self.hindrance).get_or_insert_with(|| {
            format!("{port} of {} could not be asked: {error}", address.ip())
        });
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn report(&self, module: &Arc<Module>, duration: Duration) -> Report {
        Report {
            module: Arc::clone(module),
            addresses: self.addresses.clone(),
            ports: Arc::clone(&self.ports),
            cells: lock(&self.cells).clone(),
            hindrance: lock(&self.hindrance).clone(),
            duration,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a probe has found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked, and what was hoped for.
    pub module: Arc<Module>,
    /// Who was asked, with port 0; empty where the name was not resolved in time.
    pub addresses: Vec<SocketAddr>,
    /// Which ports, TCP first, ascending.
    pub ports: Arc<[Port]>,
    /// By address, then port; `None` where nothing was found in time.
    cells: Vec<Option<Finding>>,
    /// Why something could not be asked; the first reason.
    pub hindrance: Option<String>,
    /// How long it took, resolving the name included.
    pub duration: Duration,
}

impl Report {
    /// One that found nothing.
    pub(super) fn empty(module: &Arc<Module>, duration: Duration) -> Self {
        Findings::new(Vec::new(), module.ports.iter().collect()).report(module, duration)
    }

    /// What was found of each port of one address, in the order of [`ports`](Self::ports).
    pub fn of_address(&self, index: usize) -> impl Iterator<Item = (Port, Option<Finding>)> + '_ {
        let start = index * self.ports.len();
        let cells = self.cells.get(start..start + self.ports.len());
        self.ports
            .iter()
            .copied()
            .zip(cells.unwrap_or_default().iter().copied())
    }

    /// What was found of each port, all addresses taken together: the state of the one that answers most. `None` unless
    /// all of them are known.
    pub fn ports(&self) -> impl Iterator<Item = (Port, Option<Finding>)> + '_ {
        let count = self.ports.len();
        self.ports.iter().enumerate().map(move |(index, &port)| {
            let mut of_port = self.cells.iter().skip(index).step_by(count.max(1)).copied();
            let first = of_port.next().flatten();
            let most = of_port.fold(first, |most, next| Some(most?.max(next?)));
            (port, most)
        })
    }

    /// Whether everything was found, and is as the module hopes, on every address.
    #[must_use]
    pub fn is_success(&self) -> bool {
        !self.addresses.is_empty()
            && self
                .cells
                .iter()
                .all(|cell| cell.is_some_and(|finding| self.module.expect.is_met_by(finding.state)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Expect, Reason, State};

    fn findings(expect: Expect) -> (Findings, Arc<Module>) {
        let ports: Arc<[Port]> = [Port::tcp(1), Port::tcp(2)].into();
        let addresses = ["192.0.2.1:0", "192.0.2.2:0"].map(|text| text.parse().unwrap());
        let mut module = Module::new("test", ports.iter().copied());
        module.expect = expect;
        (Findings::new(addresses.to_vec(), ports), Arc::new(module))
    }

    const OPEN: Finding = Finding::new(State::Open, Reason::SynAck);
    const CLOSED: Finding = Finding::new(State::Closed, Reason::Reset);

    #[test]
    fn a_port_is_known_when_every_address_is() {
        let (findings, module) = findings(Expect::Nothing);
        findings.put(0, 0, CLOSED);
        findings.put(0, 1, OPEN);
        findings.put(1, 0, OPEN);
        let report = findings.report(&module, Duration::ZERO);
        let ports: Vec<_> = report.ports().collect();
        assert_eq!(ports, [(Port::tcp(1), Some(OPEN)), (Port::tcp(2), None)]);
        assert_eq!(
            report.of_address(1).collect::<Vec<_>>(),
            [(Port::tcp(1), Some(OPEN)), (Port::tcp(2), None)]
        );
        assert!(!report.is_success());
        assert_eq!((findings.finished(), findings.asked()), (3, 4));
    }

    #[test]
    fn success_is_everything_known_and_as_hoped_on_every_address() {
        for (expect, success) in [
            (Expect::Nothing, true),
            (Expect::Closed, false),
            (Expect::Open, false),
        ] {
            let (findings, module) = findings(expect);
            for (address, port, finding) in
                [(0, 0, CLOSED), (0, 1, CLOSED), (1, 0, OPEN), (1, 1, CLOSED)]
            {
                findings.put(address, port, finding);
            }
            assert_eq!(
                findings.report(&module, Duration::ZERO).is_success(),
                success
            );
        }
    }

    #[test]
    fn nobody_asked_is_no_success() {
        let (_, module) = findings(Expect::Nothing);
        let report = Report::empty(&module, Duration::ZERO);
        assert!(!report.is_success());
        assert!(report.ports().all(|(_, finding)| finding.is_none()));
        assert_eq!(report.of_address(0).count(), 0);
    }
}

//! The other network namespaces of the host: containers, `ip netns`, and what else has listeners of its own.
//!
//! A namespace is read by entering it, and only one thread ever does that: it is kept for the purpose, opens a socket there,
//! reads, and comes back. The thread that asks stays where it is. Nothing is kept between two readings, no file and no socket,
//! because either would keep a namespace alive that everybody else has left. Knows sockets and procfs; not owners, metrics or
//! configuration.
//!
//! What is not seen: a namespace in which no process is and that has no name, held only by an open file, by a mount elsewhere
//! or by the sockets themselves; and one in which only a further thread of a process is.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::privileges::{self, Capability};
use crate::sockets::{self, SocketTable};

mod discover;
mod visit;

use visit::Visitor;

/// Where iproute2, and with it Kubernetes' network plug-ins, name namespaces.
pub const NAMES: &str = "/run/netns";

/// What the thread keeps: entering, and opening the namespaces of other users' processes.
const NEEDED: [Capability; 3] = [
    Capability::SysAdmin,
    Capability::SysPtrace,
    Capability::DacReadSearch,
];

/// How much one reading takes on at the most. What is left out is first in the next one: any user can make namespaces by the
/// thousand, and decides neither how long a reading takes nor whose turn never comes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many namespaces.
    pub most: usize,
    /// For how long a further one is begun. One is read in any case.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            most: 1024,
            time: Duration::from_secs(2),
        }
    }
}

/// The other network namespaces of the host. Dropping it ends its thread.
#[derive(Debug)]
pub struct Namespaces {
    procfs: PathBuf,
    names: PathBuf,
    bounds: Bounds,
    orders: Option<mpsc::Sender<Order>>,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    /// Its inode in nsfs, as `readlink /proc/PID/ns/net` and `lsns` show it.
    pub inode: u64,
    /// Its name; of several, the first by alphabet.
    pub name: Option<String>,
}

/// What the other namespaces showed at one moment. The exporter's own is nowhere in it.
#[derive(Debug, Default)]
pub struct Reading {
    /// How many there are, of which was known.
    pub seen: usize,
    /// How many were read.
    pub read: usize,
    /// The listeners of each that was read, in no order.
    pub tables: Vec<(Namespace, SocketTable)>,
    /// Those that were not read.
    pub unread: Vec<Namespace>,
    /// Processes whose namespace could not be told, for lack of CAP_SYS_PTRACE: they may be in one that is not among those seen.
    pub unreadable: usize,
    /// Why the first that was not read was not.
    pub failure: Option<(Namespace, Failure)>,
}

/// Why one namespace was not read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be opened.
    #[error("open it: {0}; CAP_SYS_PTRACE opens the namespaces of other users' processes")]
    Open(#[source] io::Error),
    /// It could not be entered.
    #[error("enter it: {0}; CAP_SYS_ADMIN permits it")]
    Enter(#[source] io::Error),
    /// It was entered, but its sockets could not be read.
    #[error(transparent)]
    Sockets(#[from] sockets::Error),
    /// The reading had come to its bounds.
    #[error("left for the next sample: one reads at most {} of them, for {:?}", .0.most, .0.time)]
    Left(Bounds),
}

/// Why no namespace could be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread that enters namespaces could not be started.
    #[error("start a thread to enter network namespaces: {0}")]
    Thread(#[source] io::Error),
    /// The own namespace could not be opened, and so nothing is entered that could not be left again.
    #[error("open the own network namespace at {path}: {source}")]
    Own {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The processes could not be listed.
    #[error("list the processes in {path}: {source}; --path.procfs must name a procfs")]
    Processes {
        /// The procfs.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread could not come back to its own namespace, and has ended; the next reading starts another.
    #[error("come back from network namespace {from}")]
    Stranded {
        /// Where it was.
        from: Namespace,
    },
    /// The thread has ended without an answer.
    #[error("the thread that enters network namespaces has ended")]
    Ended,
}

/// An order to read, with where the answer goes.
type Order = mpsc::SyncSender<Result<Reading, Error>>;

impl Namespaces {
    /// Namespaces of which nothing is read yet. Processes are taken from the procfs at this path, names from a directory
    /// such as [`NAMES`]; one that is not there names nothing. The thread starts with the first reading.
    #[must_use]
    pub fn new(procfs: &Path, names: &Path) -> Self {
        Self::with_bounds(procfs, names, Bounds::default())
    }

    /// The same, with bounds.
    #[must_use]
    pub fn with_bounds(procfs: &Path, names: &Path, bounds: Bounds) -> Self {
        Self {
            procfs: procfs.to_owned(),
            names: names.to_owned(),
            bounds,
            orders: None,
        }
    }

    /// Starts the thread now, for who is about to give up the privilege that it needs.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.orders.is_none() {
            self.orders = Some(self.start_thread()?);
        }
        Ok(())
    }

    /// Ends the thread, and with it the privilege that it kept.
    pub fn stop(&mut self) {
        self.orders = None;
    }

    /// Reads the listeners of the other namespaces, within the bounds. One that ends meanwhile is left out; one that cannot be
    /// read, or is left for the next time, is seen but not read.
    ///
    /// # Errors
    /// When none can be looked for.
    pub fn read(&mut self) -> Result<Reading, Error> {
        let orders = match self.orders.take() {
            Some(orders) => orders,
            None => self.start_thread()?,
        };
        let (order, answer) = mpsc::sync_channel(1);
        orders.send(order).map_err(|_| Error::Ended)?;
        let answer = answer.recv().map_err(|_| Error::Ended)?;
        if !matches!(answer, Err(Error::Stranded { .. })) {
            self.orders = Some(orders);
        }
        answer
    }

    fn start_thread(&self) -> Result<mpsc::Sender<Order>, Error> {
        let (orders, received) = mpsc::channel::<Order>();
        let visitor = Visitor::new(self.procfs.clone(), self.names.clone(), self.bounds);
        thread::Builder::new()
            .name("namespaces".to_owned())
            .spawn(move || {
                privileges::reduce_thread(&NEEDED);
                serve(visitor, &received);
            })
            .map_err(Error::Thread)?;
        Ok(orders)
    }
}

/// Carries out orders until nobody gives any, or until the thread is where it must not work on.
fn serve(mut visitor: Visitor, orders: &mpsc::Receiver<Order>) {
    for order in orders {
        let answer = visitor.read();
        let stranded = matches!(answer, Err(Error::Stranded { .. }));
        // Whoever gave the order may have gone; the next one counts.
        let _ = order.send(answer);
        if stranded {
            return;
        }
    }
}

impl fmt::Display for Namespace {
    /// As in the `netns` label: the name, or the inode where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.pad(name),
            None => write!(f, "{}", self.inode),
        }
    }
}

//! The netlink tier: exact counts of connections and listeners, for any user.
//!
//! The kernel tells whoever subscribes of every TCP and UDP socket it destroys (`NETLINK_SOCK_DIAG`, groups 1 to 4). What
//! was counted is then what was destroyed since the start, and what is there now, less what was there at the start. This
//! file holds the handle; `subscription` the sockets and `filter` what the kernel sorts out for them; `message`
//! what a message says; `ledger` the arithmetic. None knows metrics or configuration.
//!
//! # What cannot be had this way
//!
//! - Attempts, refusals and failures: they leave no socket, or one that tells too little.
//! - A TCP socket that is bound and closed without listen(2) looks like a listener that was closed: if no table showed it,
//!   it counts as opened. A UDP socket that sends without connect(2) looks like one that listens, in the table as well.
//! - An outbound connection that this host itself aborts (`SO_LINGER` 0, or connect(2) to `AF_UNSPEC`) before a table
//!   has shown it: the kernel wipes its remote port.
//! - A connection that was reset is in no table, and is told of when its process closes the descriptor, not before.
//! - Sockets of the kernel itself, an NFS server's for example, are destroyed in silence: they are counted when a table
//!   shows them.
//! - A socket that connects, is disconnected and connects again counts once.
//! - Which way a connection went that no table has shown and that began with a listener gone for longer than two tables and
//!   ten seconds, where a FIN was sent: it is taken for outbound. For that its process must have shut it down, or had it
//!   reset, and then kept the descriptor for so long.
//!
//! Needs Linux 4.19 for all of it; 4.2 tells of the sockets but not of who began a connection, and the ports alone decide.
//! Before 4.12 it is not told how much was dropped, only that something was.
//! Every closed TCP and UDP socket of the host pays for the message, watched or not.

mod filter;
mod ledger;
mod message;
mod subscription;

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::setpriority_process;

use crate::counts::PortCounts;
use crate::port::{Port, PortSet};
use crate::privileges;
use crate::sockets::{Listener, SocketTable};

use self::ledger::Ledger;
use self::message::Destroyed;
use self::subscription::{Group, Heard, LONGEST_MESSAGE, Subscription};

/// How many messages are taken from a socket in one go. They are taken before any is booked, because the kernel can tell
/// faster than books are kept.
const BATCH: usize = 8192;

/// How many batches are taken from a socket before a table is booked: all that waited, and no end where more comes than
/// can be booked.
const MOST_BATCHES: usize = 8;

/// How long the reader lets messages gather once there is one, where buffers allow it: a thread that wakes for each of
/// thousands takes several times the processor time.
const GATHER: Duration = Duration::from_millis(1);

/// How long the reader rests after a failure.
const RETRY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The reader's niceness where it may choose: it has little to do, and what it does late is lost.
const NICENESS: i32 = -10;

/// Why sockets destroyed cannot be heard of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a step.
    #[error("{step}: {source}")]
    Os {
        /// What was being done.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    fn io(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Os { step, source }
    }

    fn os(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Os {
            step,
            source: errno.into(),
        }
    }
}

/// How to subscribe.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Receive buffer of each netlink socket, in octets as for `SO_RCVBUF`; `None` for the largest to be had.
    pub receive_buffer: Option<usize>,
}

/// Counts what happens on watched ports by what the kernel tells of destroyed sockets.
///
/// Tables of the sockets present are read by the caller, with a reader whose sockets have cookies: between
/// [`before_read`](Self::before_read) and [`after_read`](Self::after_read), so that nothing is counted twice.
#[derive(Debug)]
pub struct Netlink {
    shared: Arc<Shared>,
    /// Ends the reader by being closed.
    stop: Option<PipeWriter>,
    reader: Option<JoinHandle<()>>,
}

impl Netlink {
    /// Subscribes in the calling thread's network namespace and starts the reader. `present` is a table read just before,
    /// with the connections that concern `watched`: what it shows is not counted.
    ///
    /// # Errors
    /// When the kernel refuses the subscription or its filter, or a thread cannot be had.
    pub fn start(watched: &PortSet, present: &SocketTable) -> Result<Self, Error> {
        Self::start_with(watched, present, Options::default())
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        watched: &PortSet,
        present: &SocketTable,
        options: Options,
    ) -> Result<Self, Error> {
        let mut subscriptions = Vec::with_capacity(Group::ALL.len());
        for group in Group::ALL {
            subscriptions.extend(Subscription::open(group, watched, options.receive_buffer)?);
        }
        let ledger = Ledger::new(watched.clone(), present, SystemTime::now());
        let shared = Arc::new(Shared {
            books: Mutex::new(Books {
                ledger,
                subscriptions,
                lost: 0,
                inbox: Vec::new(),
                is_failing: false,
            }),
        });
        let (stopped, stop) = io::pipe().map_err(|source| Error::Os {
            step: "open a pipe",
            source,
        })?;
        let reader = thread::Builder::new()
            .name("destroyed".into())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    // Of this thread alone. It is no harm where it is refused.
                    let _ = setpriority_process(None, NICENESS);
                    privileges::reduce_thread(&[]);
                    shared.read_until(&stopped);
                }
            })
            .map_err(|source| Error::Os {
                step: "start the netlink reader",
                source,
            })?;
        Ok(Self {
            shared,
            stop: Some(stop),
            reader: Some(reader),
        })
    }

    /// Changes what is watched, losing nothing on ports that stay. `present` is a table read just before, with the
    /// connections that concern `watched`: what it shows on ports not watched before is not counted.
    ///
    /// # Errors
    /// When the kernel refuses the filter. Counting goes on by the new set all the same, but the kernel may wake the
    /// reader for ports that are not watched.
    pub fn watch(&mut self, watched: &PortSet, present: &SocketTable) -> Result<(), Error> {
        let mut books = self.shared.books();
        let mut outcome = Ok(());
        for subscription in &books.subscriptions {
            outcome = outcome.and(subscription.filter(watched));
        }
        books
            .ledger
            .watch(watched.clone(), present, SystemTime::now());
        outcome
    }

    /// Says that a table is about to be read.
    pub fn before_read(&mut self) {
        self.shared.books().ledger.hold();
    }

    /// Books the table that was read since [`before_read`](Self::before_read). `now` is when.
    pub fn after_read(&mut self, table: &SocketTable, now: SystemTime) {
        let mut books = self.shared.books();
        books.catch_up(now);
        books.count_drops();
        books.ledger.book_table(table, now);
    }

    /// Says that the table could not be read.
    pub fn after_failed_read(&mut self) {
        self.shared.books().ledger.release();
    }

    /// What was counted on a port since it was first watched. All `None` where it is not watched.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        self.shared.books().ledger.counts(port)
    }

    /// Whether what the kernel tells can be read: the reader's thread is at work, and neither it nor the last table has met
    /// an error. A thread that has tries again each second; until then, what waits is read at each table only.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        let is_at_work = self
            .reader
            .as_ref()
            .is_some_and(|reader| !reader.is_finished());
        is_at_work && !self.shared.books().is_failing
    }

    /// Connections accepted since start on every port that is or was watched.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.books().ledger.accepted()
    }

    /// Messages that never reached the books, as known when a table was last booked: what the kernel dropped because the
    /// buffer was full, by its own count where it can be read, else one for each time it said so; and what could not be
    /// understood. Besides watched ports, TCP listeners of every port are told of. Never goes down.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.books().lost
    }

    /// The listeners on watched ports that were closed since this was last asked, and when each was, oldest first. One that
    /// no table has shown has neither inode nor user. If nobody asks, the newest 65,536 are kept.
    pub fn closed_listeners(&mut self) -> Vec<(Listener, SystemTime)> {
        self.shared.books().ledger.take_closed()
    }

    /// Watched ports on which this host listens or listened: those that may still have connections.
    #[must_use]
    pub fn ports_listened(&self) -> PortSet {
        self.shared.books().ledger.ever_listened().clone()
    }

    /// Watched ports on which this host listened or accepted, or to which it connected.
    #[must_use]
    pub fn ports_used(&self) -> PortSet {
        self.shared.books().ledger.used().clone()
    }

    /// Stops the reader until the returned value is dropped: what is told meanwhile waits in the kernel, as far as its
    /// buffer reaches. For tests of what happens then.
    #[doc(hidden)]
    #[must_use]
    pub fn pause(&self) -> impl Drop + '_ {
        Paused {
            _books: self.shared.books(),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has said so.
            let _ = reader.join();
        }
    }
}

struct Paused<'a> {
    _books: MutexGuard<'a, Books>,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {}
}

#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        // The books are right after every step: a panic elsewhere does not spoil them.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the other end of the pipe is closed. Sleeps while nothing watched is destroyed.
    fn read_until(&self, stopped: &PipeReader) {
        while let Err(error) = self.try_read_until(stopped) {
            self.books().note_failure(&error);
            let mut stop = [PollFd::new(stopped, PollFlags::IN)];
            if poll(&mut stop, Some(&RETRY)).is_ok_and(|ready| ready > 0) {
                return;
            }
        }
    }

    fn try_read_until(&self, stopped: &PipeReader) -> io::Result<()> {
        // Descriptors of its own, so that waiting needs no lock.
        let sockets = self.books().descriptors()?;
        let may_gather = self.books().have_large_buffers();
        loop {
            let mut waiting: Vec<PollFd<'_>> = sockets
                .iter()
                .map(|socket| PollFd::new(socket, PollFlags::IN))
                .collect();
            waiting.push(PollFd::new(stopped, PollFlags::IN));
            match poll(&mut waiting, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if waiting.pop().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(());
            }
            if may_gather {
                thread::sleep(GATHER);
            }
            for (index, socket) in waiting.iter().enumerate() {
                if !socket.revents().is_empty() {
                    self.books().drain(index, SystemTime::now())?;
                }
            }
        }
    }
}

/// What is left on a socket after a batch.
enum Waiting {
    Nothing,
    Maybe,
}

/// What the reader and the handle share.
#[derive(Debug)]
struct Books {
    ledger: Ledger,
    subscriptions: Vec<Subscription>,
    lost: u64,
    /// Taken from a socket and not yet booked; empty between steps.
    inbox: Vec<Destroyed>,
    /// Whether a socket could not be read when it was last tried.
    is_failing: bool,
}

impl Books {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.subscriptions
            .iter()
            .map(|subscription| subscription.as_fd().try_clone_to_owned())
            .collect()
    }

    fn have_large_buffers(&self) -> bool {
        self.subscriptions
            .iter()
            .all(Subscription::has_large_buffer)
    }

    /// Books everything that waits.
    fn catch_up(&mut self, now: SystemTime) {
        let mut failure = None;
        for index in 0..self.subscriptions.len() {
            for _ in 0..MOST_BATCHES {
                match self.drain(index, now) {
                    Ok(Waiting::Maybe) => {}
                    Ok(Waiting::Nothing) => break,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        match failure {
            Some(error) => self.note_failure(&error),
            None if std::mem::take(&mut self.is_failing) => {
                tracing::info!("the netlink sockets can be read again");
            }
            None => {}
        }
    }

    /// Tells of the first failure of several.
    fn note_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                %error,
                "a netlink socket cannot be read: what it tells waits in the kernel, and is lost if it waits for long"
            );
        }
    }

    /// Books a batch of what waits on one socket.
    fn drain(&mut self, index: usize, now: SystemTime) -> io::Result<Waiting> {
        let outcome = self.receive(index);
        for destroyed in self.inbox.drain(..) {
            self.ledger.book(destroyed, now);
        }
        outcome
    }

    fn receive(&mut self, index: usize) -> io::Result<Waiting> {
        let Some(subscription) = self.subscriptions.get_mut(index) else {
            return Ok(Waiting::Nothing);
        };
        let mut buffer = [0; LONGEST_MESSAGE];
        for _ in 0..BATCH {
            match subscription.receive(&mut buffer)? {
                Heard::Message(length) => {
                    match Destroyed::parse(&buffer[..length], subscription.protocol()) {
                        Ok(destroyed) => self.inbox.extend(destroyed),
                        Err(message::Unreadable) => self.lost += 1,
                    }
                }
                Heard::Nothing => return Ok(Waiting::Nothing),
            }
        }
        Ok(Waiting::Maybe)
    }

    /// Asks what was dropped.
    fn count_drops(&mut self) {
        for subscription in &mut self.subscriptions {
            self.lost += u64::from(subscription.newly_dropped());
        }
    }
}

/// What the kernel says of a socket it destroyed.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    for protocol in crate::port::Protocol::ALL {
        if let Ok(Some(destroyed)) = Destroyed::parse(bytes, protocol) {
            assert_ne!(destroyed.port.number, 0);
            assert_eq!(destroyed.port.protocol, protocol);
            assert_eq!(destroyed.address, destroyed.address.to_canonical());
        }
    }
}

//! The way of a finished line to standard error, by a thread of its own.
//!
//! A pipe that nobody reads blocks whoever writes to it, for ever. So no thread that serves writes to it: lines wait in a
//! bounded queue, and what does not fit is dropped, counted and told of when lines pass again.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait to be written.
const ROOM: usize = 1 << 20;
/// How long the end of the run waits for lines still on their way.
const FLUSH: Duration = Duration::from_secs(1);

/// Where lines are put.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// Something came, or everything is written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    /// Bytes in `lines`.
    waiting: usize,
    /// Whether the thread holds a line that is not written yet.
    writing: bool,
    dropped: u64,
}

impl Sink {
    /// Starts the thread. `tell` makes the line that says how many were dropped.
    pub(super) fn start(
        mut writer: impl Write + Send + 'static,
        tell: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let sink = Self(Arc::clone(&queue));
        thread::Builder::new().name("log".into()).spawn(move || {
            crate::privileges::reduce_thread(&[]);
            loop {
                let line = queue.next();
                if write(&mut writer, &line) {
                    let dropped = queue.take_dropped();
                    if dropped > 0 && !write(&mut writer, &tell(dropped)) {
                        queue.drop_more(dropped);
                    }
                } else {
                    queue.drop_more(1);
                }
                queue.done();
            }
        })?;
        Ok(sink)
    }

    /// Puts a line, which ends in a line feed, in the queue; drops it if there is no room.
    pub(super) fn put(&self, line: String) {
        let mut state = self.0.state();
        if state.waiting.saturating_add(line.len()) > ROOM {
            state.dropped = state.dropped.saturating_add(1);
        } else {
            state.waiting += line.len();
            state.lines.push_back(line);
            self.0.changed.notify_all();
        }
    }

    /// Waits until all is written, but not for long.
    pub(super) fn flush(&self) {
        let state = self.0.state();
        drop(
            self.0
                .changed
                .wait_timeout_while(state, FLUSH, |state| {
                    state.writing || !state.lines.is_empty()
                })
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> String {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.waiting -= line.len();
                state.writing = true;
                return line;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self) {
        self.state().writing = false;
        self.changed.notify_all();
    }

    fn drop_more(&self, lines: u64) {
        let mut state = self.state();
        state.dropped = state.dropped.saturating_add(lines);
    }

    fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state().dropped)
    }
}

/// True if the line went through. A full disk or a closed pipe is no reason to stop, and there is nowhere to say it.
fn write(writer: &mut impl Write, line: &str) -> bool {
    writer
        .write_all(line.as_bytes())
        .and_then(|()| writer.flush())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Takes a line only when told how it ends.
    struct Held {
        verdicts: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.verdicts.recv().unwrap()?;
            self.written
                .send(String::from_utf8(bytes.to_vec()).unwrap())
                .unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn held() -> (Sink, Sender<io::Result<()>>, Receiver<String>) {
        let (verdict, verdicts) = channel();
        let (written, lines) = channel();
        let sink = Sink::start(Held { verdicts, written }, |count| {
            format!("dropped {count}\n")
        })
        .unwrap();
        (sink, verdict, lines)
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_they_are_counted() {
        let (sink, verdict, lines) = held();
        let long = "x".repeat(ROOM / 4 - 1) + "\n";
        sink.put("first\n".into());
        // Whether the thread has the first line in hand or not, the fifth long one does not fit.
        for _ in 0..5 {
            sink.put(long.clone());
        }
        verdict.send(Ok(())).unwrap();
        verdict.send(Ok(())).unwrap();
        assert_eq!(lines.recv().unwrap(), "first\n");
        let told = lines.recv().unwrap();
        let dropped = told.strip_prefix("dropped ").unwrap().trim_end();
        assert!(dropped.parse::<u64>().unwrap() >= 1, "{told}");
    }

    #[test]
    fn a_full_disk_drops_a_line_and_the_next_that_passes_is_followed_by_the_count() {
        let (sink, verdict, lines) = held();
        sink.put("lost\n".into());
        sink.put("kept\n".into());
        verdict
            .send(Err(io::Error::from(io::ErrorKind::StorageFull)))
            .unwrap();
        // The count is lost on the way as well, once, and nothing of it is forgotten.
        verdict.send(Ok(())).unwrap();
        verdict
            .send(Err(io::Error::from(io::ErrorKind::StorageFull)))
            .unwrap();
        sink.put("next\n".into());
        verdict.send(Ok(())).unwrap();
        verdict.send(Ok(())).unwrap();
        assert_eq!(lines.recv().unwrap(), "kept\n");
        assert_eq!(lines.recv().unwrap(), "next\n");
        assert_eq!(lines.recv().unwrap(), "dropped 1\n");
    }
}

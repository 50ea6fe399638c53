//! A lane: the ports of one protocol on one address, asked until all have an answer or their silence is believed.
//!
//! First all ports are asked, each waiting no longer than the host's answers so far suggest; then those that stayed silent
//! are asked again, with all the patience the module has. If some of them answer now that were silent before, the host or
//! a firewall limits how often it answers (Linux, for one, sends a peer six ICMP messages and then one a second:
//! `icmp_ratelimit`, icmp(7)), and silence proves nothing: then a few at a time are asked, at most once a second, as long
//! as that brings answers. A port is given up as silent when it was silent while others could have answered and nobody did.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bucket::Bucket;
use super::finding::{Finding, Outcome, Reason, State};
use super::module::Module;
use super::report::Findings;
use super::{socket, tcp, udp};
use crate::port::Protocol;

/// What all runs of a process share.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Questions a second, of everybody.
    pub(super) all: Bucket,
    /// Sockets at a time, of everybody.
    pub(super) sockets: Semaphore,
}

/// What all lanes of a run share.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) module: Arc<Module>,
    pub(super) findings: Arc<Findings>,
    pub(super) bounds: Arc<Bounds>,
    /// Questions a second, of all runs of this module.
    pub(super) bucket: Arc<Bucket>,
    /// The rate of all modules together.
    pub(super) rate: u32,
    /// Questions at a time, of this run.
    pub(super) places: Semaphore,
}

impl Job {
    /// Where every question needs a token from, and how many there are a second.
    fn buckets(&self) -> [(&Bucket, u32); 2] {
        [
            (&*self.bucket, self.module.rate),
            (&self.bounds.all, self.rate),
        ]
    }
}

/// The ports of one protocol on one address.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) job: Arc<Job>,
    /// Which of the addresses.
    pub(super) address: usize,
    pub(super) protocol: Protocol,
    pub(super) pace: Mutex<Pace>,
}

/// Ports asked at a time of a host that limits its answers: enough to use up what it grants, no burden otherwise.
const FEW: usize = 64;
/// How long such a host has to grant some more.
const REST: Duration = Duration::from_secs(1);
/// How long to wait where the system is short of something, and how often.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES: usize = 100;

/// After so long without an answer Linux sends a SYN again, and then at the same interval or at longer ones (RFC 6298,
/// `tcp_syn_linear_timeouts` of the kernel's ip-sysctl).
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// What came of asking some ports once.
#[derive(Debug, Default)]
struct Round {
    /// Which stayed silent, in ascending order.
    silent: Vec<usize>,
    /// How many answered.
    answers: usize,
}

/// A silent port: its index among the ports, and how often its silence may still be doubted.
#[derive(Clone, Copy, Debug)]
struct Silent {
    port: usize,
    doubts: u32,
}

impl Lane {
    /// Asks the ports with these indexes.
    pub(super) async fn run(self: Arc<Self>, ports: Vec<usize>) {
        let module = &self.job.module;
        let retries = module.retries;
        let first = Arc::clone(&self).ask_all(ports, retries > 0).await;
        let mut silent: Vec<Silent> = first
            .silent
            .into_iter()
            .map(|port| Silent {
                port,
                doubts: retries,
            })
            .collect();
        let mut few = usize::MAX;
        loop {
            let (doubted, believed): (Vec<_>, Vec<_>) =
                silent.into_iter().partition(|silent| silent.doubts > 0);
            self.believe(&believed);
            if doubted.is_empty() {
                return;
            }
            let is_limited = few < usize::MAX;
            let rested = Instant::now() + REST;
            let (now, later) = doubted.split_at(few.min(doubted.len()));
            let asked: Vec<usize> = now.iter().map(|silent| silent.port).collect();
            let Round {
                silent: still,
                answers,
            } = Arc::clone(&self).ask_all(asked, false).await;
            let doubts_less = u32::from(answers == 0);
            few = if answers > 0 {
                FEW.max(4 * answers)
            } else {
                few.saturating_mul(2)
            };
            // To the end, so that each has its turn.
            silent = later.to_vec();
            silent.extend(
                now.iter()
                    .filter(|silent| still.binary_search(&silent.port).is_ok())
                    .map(|silent| Silent {
                        port: silent.port,
                        doubts: silent.doubts - doubts_less,
                    }),
            );
            if is_limited {
                sleep_until(rested).await;
            }
        }
    }

    fn believe(&self, silent: &[Silent]) {
        let state = match self.protocol {
            Protocol::Tcp => State::Filtered,
            Protocol::Udp => State::OpenOrFiltered,
        };
        for silent in silent {
            let finding = Finding::new(state, Reason::NoResponse);
            self.job.findings.put(self.address, silent.port, finding);
        }
    }

    /// Asks each once.
    async fn ask_all(self: Arc<Self>, ports: Vec<usize>, is_hasty: bool) -> Round {
        let places = self.job.module.concurrency().get() as usize;
        let count = places.min(ports.len());
        let ports: Arc<[usize]> = ports.into();
        let next = Arc::new(AtomicUsize::new(0));
        let mut askers = JoinSet::new();
        for _ in 0..count {
            askers.spawn(Arc::clone(&self).ask_some(
                Arc::clone(&ports),
                Arc::clone(&next),
                is_hasty,
            ));
        }
        let mut round = Round::default();
        while let Some(some) = askers.join_next().await {
            // One that panicked leaves its ports without an answer.
            let some = some.unwrap_or_default();
            round.silent.extend(some.silent);
            round.answers += some.answers;
        }
        round.silent.sort_unstable();
        round
    }

    /// Asks whatever nobody has asked yet.
    async fn ask_some(
        self: Arc<Self>,
        ports: Arc<[usize]>,
        next: Arc<AtomicUsize>,
        is_hasty: bool,
    ) -> Round {
        let mut round = Round::default();
        let mut held = Held::default();
        while let Some(&port) = ports.get(next.fetch_add(1, Ordering::Relaxed)) {
            let findings = &self.job.findings;
            match self.ask(port, is_hasty, &mut held).await {
                Outcome::Answer(finding) => {
                    findings.put(self.address, port, finding);
                    round.answers += 1;
                }
                Outcome::Silence => round.silent.push(port),
                Outcome::NotAsked(error) => {
                    findings.give_up(findings.ports()[port], self.target(port), &error);
                }
            }
        }
        round
    }

    async fn ask<'a>(&'a self, port: usize, is_hasty: bool, held: &mut Held<'a>) -> Outcome {
        let job = &self.job;
        let target = self.target(port);
        for _ in 0..PAUSES {
            let Some(_place) = self.turn(held).await else {
                break;
            };
            let patience = if is_hasty {
                lock(&self.pace).patience(job.module.timeout)
            } else {
                job.module.timeout
            };
            let asked = Instant::now();
            let outcome = match self.protocol {
                Protocol::Tcp => {
                    let question = tcp::ask(target, patience, &mut held.spare);
                    if patience < SYN_AGAIN {
                        question.await
                    } else {
                        self.paid(question).await
                    }
                }
                Protocol::Udp => udp::ask(target, patience).await,
            };
            held.keep_spare_only();
            match outcome {
                Outcome::NotAsked(error) if socket::is_shortage(&error) => {}
                Outcome::Answer(_) => {
                    lock(&self.pace).answered(asked.elapsed());
                    return outcome;
                }
                outcome => return outcome,
            }
            sleep(PAUSE).await;
        }
        Outcome::NotAsked(std::io::Error::other(
            "the system is short of descriptors, memory or ephemeral ports",
        ))
    }

    /// Waits until one more question may be asked and there is a socket to ask it with; `None` at the end of the process.
    /// What is held is given back before anything is waited for, since others may wait for it.
    async fn turn<'a>(&'a self, held: &mut Held<'a>) -> Option<SemaphorePermit<'a>> {
        let job = &self.job;
        let place = if let Ok(place) = job.places.try_acquire() {
            place
        } else {
            *held = Held::default();
            job.places.acquire().await.ok()?
        };
        let buckets = job.buckets();
        if !Bucket::take_both(buckets, Instant::now()) {
            *held = Held::default();
            let [(of_module, rate), (of_all, rate_of_all)] = buckets;
            // Kept until there is one of everybody's too, so that the module saves up none meanwhile.
            let turn = of_module.take(rate).await;
            drop(of_all.take(rate_of_all).await);
            drop(turn);
        }
        // Where there is nothing to wait for, others have their turn all the same.
        tokio::task::consume_budget().await;
        if held.socket.is_none() {
            held.socket = Some(job.bounds.sockets.acquire().await.ok()?);
        }
        Some(place)
    }

    /// Waits for the outcome of a TCP question, and pays for each SYN that the system sends again meanwhile.
    async fn paid(&self, question: impl Future<Output = Outcome>) -> Outcome {
        let mut question = pin!(question);
        loop {
            match timeout(SYN_AGAIN, question.as_mut()).await {
                Ok(outcome) => return outcome,
                Err(_) => {
                    for (bucket, rate) in self.job.buckets() {
                        bucket.owe(rate, Instant::now());
                    }
                }
            }
        }
    }

    fn target(&self, port: usize) -> SocketAddr {
        let findings = &self.job.findings;
        let mut target = findings.addresses()[self.address];
        target.set_port(findings.ports()[port].number);
        target
    }
}

/// What an asker holds from one question to the next.
#[derive(Debug, Default)]
struct Held<'a> {
    spare: tcp::Spare,
    /// The right to a socket.
    socket: Option<SemaphorePermit<'a>>,
}

impl Held<'_> {
    /// Gives the right to a socket back, unless there is one that can be used again.
    fn keep_spare_only(&mut self) {
        if !self.spare.is_there() {
            self.socket = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How fast a host answers: mean and deviation, as TCP keeps them for its retransmission (RFC 6298).
#[derive(Debug, Default)]
pub(super) struct Pace {
    mean: Option<Duration>,
    deviation: Duration,
}

impl Pace {
    /// The least to wait, however fast the answers have been: a busy host may pause that long.
    const LEAST: Duration = Duration::from_millis(100);

    fn answered(&mut self, after: Duration) {
        match &mut self.mean {
            None => {
                self.mean = Some(after);
                self.deviation = after / 2;
            }
            Some(mean) => {
                self.deviation = self.deviation * 3 / 4 + mean.abs_diff(after) / 4;
                *mean = *mean * 7 / 8 + after / 8;
            }
        }
    }

    /// How long to wait for an answer, `most` at the most, and where nothing has been answered yet.
    fn patience(&self, most: Duration) -> Duration {
        self.mean.map_or(most, |mean| {
            (mean + 4 * self.deviation).max(Self::LEAST).min(most)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_answers() {
        let most = Duration::from_secs(2);
        let mut pace = Pace::default();
        assert_eq!(pace.patience(most), most);
        pace.answered(Duration::from_micros(100));
        assert_eq!(pace.patience(most), Pace::LEAST);
        assert_eq!(
            pace.patience(Duration::from_millis(10)),
            Duration::from_millis(10)
        );
        for _ in 0..50 {
            pace.answered(Duration::from_millis(300));
        }
        let patience = pace.patience(most);
        assert!((300..500).contains(&patience.as_millis()), "{patience:?}");
        pace.answered(Duration::from_secs(60));
        assert_eq!(pace.patience(most), most);
    }
}

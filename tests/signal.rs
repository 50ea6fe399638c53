//! Signals that this process sends to itself. One test, because handlers belong to the process.
#![cfg(target_os = "linux")]

use std::time::Duration;

use darkport_exporter::signal;
use rustix::process::{Signal, getpid, kill_process};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn hangup_asks_for_a_reload_and_terminate_for_the_end() {
    let mut reloads = signal::reloads().unwrap();
    let end = signal::shutdown().unwrap();
    let second = signal::shutdown().unwrap();

    // Nobody waits yet, and two count as one.
    kill_process(getpid(), Signal::HUP).unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    timeout(LONG, reloads.next()).await.unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    timeout(LONG, reloads.next()).await.unwrap();

    kill_process(getpid(), Signal::TERM).unwrap();
    assert_eq!(timeout(LONG, end).await.unwrap(), "SIGTERM");
    assert_eq!(timeout(LONG, second).await.unwrap(), "SIGTERM");

    let end = signal::shutdown().unwrap();
    kill_process(getpid(), Signal::INT).unwrap();
    assert_eq!(timeout(LONG, end).await.unwrap(), "SIGINT");
}

//! From attaching to the end, however it comes.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use darkport_exporter::counts::kernel::{Kernel, Options, StartError};
use darkport_exporter::port::PortSet;
use darkport_exporter::privileges::{self, Capability};

use crate::lab::{Lab, run, until};
use crate::{DARK, local};

/// Set for a process that is to be killed.
const HOLD: &str = "DARKPORT_TEST_HOLD";

/// The process that is killed: this test again.
fn hold() {
    let lab = Lab::new("held");
    let held = Kernel::start(&Options::default()).unwrap();
    println!("\nheld {}", lab.namespace.name);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(held);
}

#[test]
#[ignore = "needs root"]
fn sigkill_leaves_nothing_attached() {
    if env::var_os(HOLD).is_some() {
        return hold();
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "life::sigkill_leaves_nothing_attached",
        ])
        .env(HOLD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let namespace = lines
        .find_map(|line| Some(line.unwrap().strip_prefix("held ")?.to_owned()))
        .unwrap();
    let ids = |kind: &str| -> HashSet<String> {
        fs::read_dir(format!("/proc/{}/fdinfo", child.id()))
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .filter_map(|text| {
                let line = text.lines().find(|line| line.starts_with(kind))?;
                Some(line.split_whitespace().nth(1)?.to_owned())
            })
            .collect()
    };
    let (programs, links, maps) = (ids("prog_id:"), ids("link_id:"), ids("map_id:"));
    assert!(programs.len() >= 6, "{programs:?}");
    assert!(links.len() >= 3, "{links:?}");
    assert!(maps.len() >= 8, "{maps:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let none_is_left = |kind: &str, gone: &HashSet<String>| {
        run(&format!("bpftool {kind} show"))
            .lines()
            .filter_map(|line| line.split_once(':'))
            .all(|(id, _)| !gone.contains(id))
    };
    until("the programs are gone", || none_is_left("prog", &programs));
    until("the links are gone", || none_is_left("link", &links));
    until("the maps are gone", || none_is_left("map", &maps));
    // It could not tidy up.
    run(&format!("ip netns del {namespace}"));
}

/// With every capability given up, counting, watching and following addresses go on.
#[test]
#[ignore = "needs root"]
fn nothing_is_needed_once_attached() {
    let lab = Lab::new("reduced");
    let lab_namespace = &lab.namespace;
    thread::scope(|scope| {
        scope.spawn(|| {
            lab_namespace.enter();
            let (mut kernel, watcher, missing) = Kernel::start(&Options::default()).unwrap();
            assert_eq!(missing, []);
            // A thread that keeps what it has, to give the host an address later.
            let (now, when) = mpsc::channel::<()>();
            scope.spawn(move || {
                when.recv().unwrap();
                lab_namespace.run("ip addr add 10.8.0.1/32 dev lo");
            });
            let needs = kernel.needs();
            let reduced = privileges::reduce(needs).unwrap();
            assert!(reduced.held.iter().any(|name| name == "CAP_BPF"));
            assert_eq!(reduced.kept.len(), needs.len());
            let follower = thread::spawn(|| watcher.run(|_| {}));

            let _listener = TcpListener::bind(local(DARK)).unwrap();
            let _connection = TcpStream::connect(local(DARK)).unwrap();
            kernel.watch(&PortSet::full()).unwrap();
            assert_eq!(kernel.read().counts(DARK).connections, Some(1));
            assert_eq!(kernel.read().counts(DARK).attempts, Some(1));

            let fresh = std::net::SocketAddr::from(([10, 8, 0, 1], 4242));
            now.send(()).unwrap();
            let attempts = || {
                let _ = TcpStream::connect(fresh);
                let port = darkport_exporter::port::Port::tcp(4242);
                kernel.read().counts(port).attempts.unwrap()
            };
            until("the new address counts", || attempts() > 0);

            let refused = Kernel::start(&Options::default()).unwrap_err();
            assert!(matches!(refused, StartError::Lacks(_)), "{refused}");
            assert!(refused.to_string().contains("CAP_BPF, CAP_PERFMON"));
            drop(kernel);
            follower.join().unwrap().unwrap();
        });
    });
}

/// A capability that only one part needs costs that part, and is named.
#[test]
#[ignore = "needs root"]
fn what_is_missing_is_named_with_its_cure() {
    let _lab = Lab::new("missing");
    thread::spawn(|| {
        privileges::reduce(&[Capability::Bpf, Capability::Perfmon]).unwrap();
        let (kernel, _watcher, missing) = Kernel::start(&Options::default()).unwrap();
        let told: Vec<_> = missing.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("UDP listeners") && told[0].contains("grant CAP_NET_ADMIN"));
        let counts = kernel.read().counts(DARK);
        assert!(counts.attempts.is_some() && counts.refused.is_some());
        assert!(counts.accepted.is_some() && counts.opened.is_some());
        let udp = kernel.read().counts(crate::DARK_UDP);
        assert_eq!(udp.opened, None);
    })
    .join()
    .unwrap();
}

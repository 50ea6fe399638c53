//! Network namespaces that die, interfaces that come and go, IPv6 that is switched off.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::namespace::Namespace;
use crate::support::{run, wait_for};
use crate::{DARK, LIT, Over, Stage, WATCH, collector};

#[test]
#[ignore = "needs root"]
fn namespaces_that_die_while_they_are_read_cost_nothing_else() {
    let stage = Stage::new(&format!("{WATCH}namespaces: all\n"));
    let exporter = stage.start("kernel");
    let lit = TcpListener::bind((Ipv4Addr::LOCALHOST, LIT.number)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let dying = scope.spawn(|| {
            let mut died = 0;
            while !done.load(Ordering::Acquire) {
                let namespace = Namespace::new("dying");
                let listener = namespace
                    .within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, DARK.number)).unwrap());
                drop(namespace);
                drop(listener);
                died += 1;
            }
            died
        });
        let over = Over(&done);
        for _ in 0..100 {
            let scrape = exporter.scrape();
            assert_eq!(collector(&scrape, "sockets"), Some(1.0));
            assert_eq!(scrape.of_port("darkport_listening", LIT), Some(1.0));
            assert_eq!(scrape.of_port("darkport_listening", DARK), Some(0.0));
        }
        drop(over);
        assert!(dying.join().unwrap() > 3);
    });
    // The last one that lives is still read, and the dead ones are forgotten.
    let living = Namespace::new("living");
    let inside = living.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, DARK.number)).unwrap());
    let netns = format!("netns=\"{}\"", living.name);
    wait_for("the living namespace, and no dead one", || {
        let scrape = exporter.scrape();
        let listed: Vec<_> = scrape.series("darkport_listener_info").collect();
        let is_there = listed.iter().any(|line| line.contains(&netns));
        let is_dead_there = listed.iter().any(|line| line.contains("-dying"));
        (is_there && !is_dead_there).then_some(())
    });
    drop((inside, lit));
}

#[test]
#[ignore = "needs root"]
fn interfaces_that_come_and_go_lose_no_attempt() {
    let stage = Stage::new(WATCH);
    let exporter = stage.start("kernel");
    let counted = |family: &str| exporter.scrape().of_port(family, DARK).unwrap();
    let mut refused = 0.0;
    for turn in 1..=20_u8 {
        let address = Ipv4Addr::new(10, 77, turn, 1);
        run(
            "ip",
            &[
                "link", "add", "coming", "type", "veth", "peer", "name", "going",
            ],
        );
        run(
            "ip",
            &["addr", "add", &format!("{address}/24"), "dev", "coming"],
        );
        run("ip", &["link", "set", "coming", "up"]);
        let knock = || TcpStream::connect((address, DARK.number)).unwrap_err();
        // The exporter is told of the new address, after which every attempt on it counts.
        wait_for("the new address to be known", || {
            let before = counted("darkport_inbound_attempts_total");
            knock();
            refused += 1.0;
            (counted("darkport_inbound_attempts_total") > before).then_some(())
        });
        let before = counted("darkport_inbound_attempts_total");
        for _ in 0..10 {
            knock();
        }
        refused += 10.0;
        assert_eq!(counted("darkport_inbound_attempts_total"), before + 10.0);
        assert_eq!(counted("darkport_inbound_refused_total"), refused);
        run("ip", &["link", "del", "coming"]);
    }
    assert_eq!(collector(&exporter.scrape(), "kernel"), Some(1.0));
}

#[test]
#[ignore = "needs root"]
fn an_address_that_could_not_be_read_is_read_later() {
    let stage = Stage::new(WATCH);
    let mut exporter = stage.start("kernel");
    let pid = exporter.process.pid().to_string();
    let limit = |descriptors: &str| {
        let limit = format!("--nofile={descriptors}:");
        run("prlimit", &["--pid", &pid, &limit]);
    };
    let address = Ipv4Addr::new(10, 78, 0, 1);
    // Fewer than it holds, and more than it waits for at a time.
    limit("8");
    run(
        "ip",
        &["addr", "add", &format!("{address}/32"), "dev", "lo"],
    );
    exporter.logged(&["addresses could not be followed"]);
    limit("1024");
    // Nothing else happens to the addresses that would make it look.
    exporter.logged(&["addresses are followed again"]);
    TcpStream::connect((address, DARK.number)).unwrap_err();
    let scrape = exporter.scrape();
    assert_eq!(
        scrape.of_port("darkport_inbound_attempts_total", DARK),
        Some(1.0)
    );
    assert_eq!(collector(&scrape, "kernel"), Some(1.0));
}

#[test]
#[ignore = "needs root"]
fn ipv6_switched_off_and_on_again_is_followed() {
    let stage = Stage::new(WATCH);
    let switch = |value: &str| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", value).unwrap();
    };
    switch("1");
    for tier in ["kernel", "netlink"] {
        let mut command = stage.command(tier, &[]);
        command.arg("--web.listen-address=:19101");
        let exporter = crate::support::Exporter::listening(command);
        TcpListener::bind((Ipv6Addr::LOCALHOST, LIT.number)).unwrap_err();
        let scrape = exporter.scrape();
        assert_eq!(collector(&scrape, "sockets"), Some(1.0), "{tier}");
        assert_eq!(
            scrape.of_port("darkport_listening", LIT),
            Some(0.0),
            "{tier}"
        );
        switch("0");
        // The address of loopback is back at once; what uses it may be a moment behind.
        let lit = wait_for("IPv6", || {
            TcpListener::bind((Ipv6Addr::LOCALHOST, LIT.number)).ok()
        });
        let scrape = exporter.scrape();
        assert_eq!(
            scrape.of_port("darkport_listening", LIT),
            Some(1.0),
            "{tier}"
        );
        let client = TcpStream::connect((Ipv6Addr::LOCALHOST, LIT.number)).unwrap();
        drop((lit.accept().unwrap(), client));
        wait_for("the connection to be counted", || {
            let shown = exporter
                .scrape()
                .of_port("darkport_inbound_accepted_total", LIT);
            (shown == Some(1.0)).then_some(())
        });
        switch("1");
        let scrape = exporter.scrape();
        assert_eq!(collector(&scrape, "sockets"), Some(1.0), "{tier}");
        assert_eq!(
            scrape.of_port("darkport_inbound_accepted_total", LIT),
            Some(1.0),
            "{tier}"
        );
    }
}

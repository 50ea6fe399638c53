//! Thousands of listeners.

use std::net::{Ipv4Addr, TcpListener};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{Stage, collector};

#[test]
#[ignore = "needs root"]
fn ten_thousand_listeners_are_all_shown_and_the_list_of_them_is_cut() {
    const FIRST: u16 = 20_000;
    const MANY: usize = 10_000;
    let room = Some(MANY as u64 + 1000);
    let limit = Rlimit {
        current: room,
        maximum: room,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let stage = Stage::new(
        "watch:\n- {name: crowd, ports: [20000-29999], protocols: [tcp]}\n\
         limits: {series: 130000, listeners: 500}\n",
    );
    for tier in ["kernel", "netlink"] {
        let exporter = stage.start(tier);
        let lit = || {
            let scrape = exporter.scrape();
            assert_eq!(collector(&scrape, "sockets"), Some(1.0), "{tier}");
            assert_eq!(scrape.series("darkport_listening").count(), MANY, "{tier}");
            let is_lit = |line: &&str| line.ends_with(" 1");
            let lit = scrape.series("darkport_listening").filter(is_lit).count();
            let opened = scrape.series("darkport_listener_opened_total");
            let opened: f64 = opened
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum();
            let suppressed = "darkport_series_suppressed{family=\"darkport_listener_info\"}";
            let listed = scrape.series("darkport_listener_info").count();
            (lit, opened, listed, scrape.value(suppressed).unwrap())
        };
        let (shown, ..) = lit();
        assert_eq!(shown, 0, "{tier}");
        let open = |index| TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + index as u16)).unwrap();
        let listeners: Vec<_> = (0..MANY).map(open).collect();
        // The exporter's own is one more, and not the most important.
        assert_eq!(
            lit(),
            (MANY, MANY as f64, 500, MANY as f64 + 1.0 - 500.0),
            "{tier}"
        );
        drop(listeners);
        assert_eq!(lit(), (0, MANY as f64, 1, 0.0), "{tier}");
    }
}

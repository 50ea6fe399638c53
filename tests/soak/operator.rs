//! What the people in charge do meanwhile: reload, good and bad, look at the pages, and probe.

use std::fs;
use std::path::PathBuf;

use darkport_exporter::port::Port;

use crate::ledger::{Count, Ledger};
use crate::subject::Subject;
use crate::support::{Scrape, wait_for};
use crate::traffic::Listeners;
use crate::{PROBED_DARK, PROBED_LIT, configuration};

/// Watched by the other configuration alone.
const MORE: Port = Port::tcp(2401);
const RELOADED: &str = "darkport_config_last_reload_successful";

pub(crate) struct Operator<'a> {
    pub(crate) subjects: &'a [Subject],
    pub(crate) ledger: &'a Ledger,
    pub(crate) listeners: &'a Listeners,
    /// The configuration of both.
    pub(crate) file: PathBuf,
}

impl Operator<'_> {
    /// How many kinds of steps there are, taken in turn.
    pub(crate) const KINDS: u64 = 3;

    pub(crate) fn step(&self, turn: u64) {
        match turn % Self::KINDS {
            0 => self.reload(),
            1 => self.look(),
            _ => self.probe(),
        }
    }

    /// Another configuration by SIGHUP, a bad one both ways, and the first one over HTTP.
    fn reload(&self) {
        let other = configuration(&format!("- {{name: more, ports: [{}]}}\n", MORE.number));
        fs::write(&self.file, other).unwrap();
        self.hang_up("reloads with another configuration", |scrape| {
            scrape.of_port("darkport_listening", MORE) == Some(0.0)
        });
        fs::write(&self.file, "watch: [{name: bad, port: x}]\n").unwrap();
        self.hang_up("reloads of a bad configuration", |scrape| {
            scrape.value(RELOADED) == Some(0.0)
                && scrape.of_port("darkport_listening", MORE) == Some(0.0)
        });
        self.post("reloads of a bad configuration", 500);
        fs::write(&self.file, configuration("")).unwrap();
        self.post("reloads with the first configuration", 200);
        for subject in self.subjects {
            let scrape = subject.scrape(self.ledger).unwrap();
            assert_eq!(scrape.value(RELOADED), Some(1.0));
            assert_eq!(scrape.of_port("darkport_listening", MORE), None);
        }
    }

    fn hang_up(&self, deed: &'static str, is_so: impl Fn(&Scrape) -> bool) {
        for subject in self.subjects {
            subject.hang_up();
            self.ledger.did(deed);
            wait_for(deed, || {
                let scrape = subject.scrape(self.ledger).unwrap();
                is_so(&scrape).then_some(())
            });
        }
    }

    fn post(&self, deed: &'static str, status: u16) {
        for subject in self.subjects {
            let reply = subject.ask(self.ledger, "POST", "/-/reload").unwrap();
            assert_eq!(reply.status, status, "{}", reply.body);
            self.ledger.did(deed);
        }
    }

    fn look(&self) {
        for subject in self.subjects {
            for (path, status) in [
                ("/", 200),
                ("/map", 200),
                ("/api/v1/ports", 200),
                ("/api/v1/ports/facts", 200),
                ("/config", 200),
                ("/-/healthy", 200),
                ("/nothing", 404),
            ] {
                let reply = subject.ask(self.ledger, "GET", path).unwrap();
                assert_eq!(reply.status, status, "{path}: {}", reply.body);
                self.ledger.did("pages looked at");
            }
        }
    }

    fn probe(&self) {
        use Count::{Accepted, Attempts, Failed, Outbound, Refused};
        for subject in self.subjects {
            let reply = subject
                .ask(self.ledger, "GET", "/probe?target=127.0.0.1&module=both")
                .unwrap();
            let scrape = Scrape(reply.body);
            for (port, open) in [(PROBED_LIT, 1.0), (PROBED_DARK, 0.0)] {
                let shown = scrape.of_port("darkport_probe_open", port);
                assert_eq!(shown, Some(open), "{port}: {}", scrape.0);
            }
            drop(self.listeners.probed.accept().unwrap());
            let counts = &[Attempts, Accepted, Outbound];
            self.ledger.note("ports probed", PROBED_LIT, counts);
            let counts = &[Attempts, Refused, Failed];
            self.ledger.note("ports probed", PROBED_DARK, counts);
        }
    }
}

//! docs/permissions.md says of each capability what the exporter loses without it; here it is run without.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use darkport_exporter::port::Port;
use darkport_exporter::privileges::Capability;

use crate::support::{Exporter, Running, program, wait_for};
use crate::text;

const GIVEN: [Capability; 5] = [
    Capability::Bpf,
    Capability::Perfmon,
    Capability::NetAdmin,
    Capability::SysPtrace,
    Capability::DacReadSearch,
];

/// A row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    without: String,
    tier: String,
    owners: String,
    udp_listeners: String,
}

impl Row {
    /// Which capabilities are left, in the way `setpriv` is told.
    fn left(&self) -> String {
        GIVEN
            .iter()
            .map(|one| one.as_str())
            .filter(|&name| name != self.without && self.without != "all of them")
            .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
            .fold("-all".to_owned(), |all, one| all + &one)
    }
}

fn rows() -> Vec<Row> {
    let document = text("docs/permissions.md");
    let table = document
        .split_once("<!-- held by tests/deploy/permissions.rs -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /held -->"))
        .expect("the table")
        .0;
    table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let mut cells = line
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned());
            let mut next = || cells.next().expect("a cell");
            Row {
                without: next(),
                tier: next(),
                owners: next(),
                udp_listeners: next(),
            }
        })
        .collect()
}

#[test]
fn the_table_has_a_row_for_each_capability_that_the_units_give() {
    let mut expected = vec!["nothing"];
    expected.extend(GIVEN.map(Capability::as_str));
    expected.push("all of them");
    let rows: Vec<String> = rows().into_iter().map(|row| row.without).collect();
    assert_eq!(rows, expected);
}

/// A copy of the program and a configuration where an ordinary user can read them.
struct Readable {
    _folder: tempfile::TempDir,
    copy: PathBuf,
    configuration: PathBuf,
}

impl Readable {
    fn new(configuration_text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let everybody = |path: &PathBuf| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        everybody(&folder.path().to_owned());
        let copy = folder.path().join("darkport_exporter");
        fs::copy(program(), &copy).unwrap();
        let configuration = folder.path().join("darkport.yml");
        fs::write(&configuration, configuration_text).unwrap();
        everybody(&copy);
        everybody(&configuration);
        Self {
            _folder: folder,
            copy,
            configuration,
        }
    }

    fn start(&self, capabilities: &str) -> Exporter {
        let [inherited, ambient, bounding] = ["inh-caps", "ambient-caps", "bounding-set"]
            .map(|set| format!("--{set}={capabilities}"));
        let wrapper = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
            &inherited,
            &ambient,
            &bounding,
        ];
        let configuration = self.configuration.to_str().unwrap();
        Exporter::start_copy(&self.copy, &wrapper, &["--config.file", configuration])
    }
}

#[test]
#[ignore = "needs root"]
fn without_a_capability_is_lost_what_the_table_says() {
    // The test's own listener: another user's, for the exporter.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = Port::udp(socket.local_addr().unwrap().port());
    let readable = Readable::new(&format!(
        "watch:\n- {{name: ours, ports: [{port}, {}]}}\n",
        udp.number
    ));
    for row in rows() {
        let mut exporter = readable.start(&row.left());
        let scrape = wait_for("a scrape that shows the listener", || {
            let scrape = exporter.scrape();
            let is_shown = scrape.of_port("darkport_listening", Port::tcp(port)) == Some(1.0);
            is_shown.then_some(scrape)
        });
        let tier = ["kernel", "netlink", "polled"]
            .into_iter()
            .find(|tier| {
                scrape.value(&format!("darkport_counting_tier{{tier=\"{tier}\"}}")) == Some(1.0)
            })
            .expect("a tier");
        let found = scrape
            .value("darkport_collector_success{collector=\"owners\"}")
            .expect("the owners' collector");
        let info = scrape
            .series("darkport_listener_info")
            .find(|series| series.contains(&format!("port=\"{port}\"")))
            .expect("the listener");
        let has_user = info.contains("user=\"root\"");
        assert_eq!(found == 1.0, has_user, "{row:?}: {info}");
        let opened = scrape.of_port("darkport_listener_opened_total", udp);
        let seen = Row {
            without: row.without.clone(),
            tier: tier.to_owned(),
            owners: if has_user { "known" } else { "absent" }.to_owned(),
            udp_listeners: if opened.is_some() {
                "counted"
            } else {
                "absent"
            }
            .to_owned(),
        };
        assert_eq!(seen, row, "{:#?}", exporter.log());
        // The log names what is missing.
        if row.without.starts_with("CAP_") {
            let missing = row.without.clone();
            exporter.logged(&[&missing, if has_user { "grant" } else { "missing" }]);
        }
    }
}

/// `namespaces: all` without CAP_SYS_ADMIN sees that there are others, and reads none of them; with it, all.
#[test]
#[ignore = "needs root"]
fn other_network_namespaces_are_read_with_cap_sys_admin_alone() {
    let _held =
        Running::start(std::process::Command::new("unshare").args(["--net", "sleep", "600"]));
    let readable = Readable::new("watch: [{name: ours, ports: [561]}]\nnamespaces: all\n");
    for (capabilities, is_read) in [
        ("-all,+sys_ptrace,+dac_read_search", false),
        ("-all,+sys_ptrace,+dac_read_search,+sys_admin", true),
    ] {
        let exporter = readable.start(capabilities);
        wait_for(&format!("namespaces with {capabilities}"), || {
            let scrape = exporter.scrape();
            let [seen, read] = ["seen", "read"].map(|state| {
                scrape.value(&format!("darkport_network_namespaces{{state=\"{state}\"}}"))
            });
            (seen? > 1.0 && (read == seen) == is_read).then_some(())
        });
    }
}

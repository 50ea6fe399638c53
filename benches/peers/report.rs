//! The document: fixed words, and the tables of one run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::curves;
use crate::tables::{Section, with_figures};

const HEAD: &str = "\
<!-- Written by `cargo bench --bench peers -- --write`; the words are in benches/peers/report.rs. -->
# What it costs, and what it sees

The exporter beside what one would use instead: everything on one machine, in one run, each in turn, medians. To repeat it, as root
on Debian:

```sh
apt-get install --no-install-recommends iproute2 util-linux lsof nmap \\
  prometheus-node-exporter prometheus-process-exporter prometheus-blackbox-exporter
cargo bench --bench peers              # prints the tables
cargo bench --bench peers -- --write   # writes this page, its curves, and the figures in README.md
```

It works in network and process namespaces of its own. Single questions are answered more closely by others:
`cargo bench --bench` `scale`, `sockets`, `owners`, `encoding`, `probe`, `netlink_cost`, `kernel_tier`, `fleet`.
";

/// What is said of each section, by title.
const WORDS: [(&str, &str); 7] = [
    (
        "A look, by established sockets",
        "From asking to the last byte of the answer: a scrape, or a run of the program with its output thrown away. The \
         default configuration; the sockets are on ports that are not watched. What is asked is not quite the same: \
         node_exporter counts sockets by state, process-exporter reads every process, `ss -tan` lists all TCP sockets, `ss -tulnp` and \
         `lsof` the listeners with their processes, netstat2 everything with processes. The exporter says who listens, with \
         process, user and unit, and what came and went on each watched port. All of them run at the same time, and the \
         polled tier reads the table each second even where nobody asks.\n\n\
         ![](performance/sockets.svg)",
    ),
    (
        "Resident memory, by established sockets",
        "After the scrapes above. The kernel tier maps its counters of all ports, 9 MB of the kernel's memory, which counts as \
         resident once more.",
    ),
    (
        "Processor while nobody asks, by established sockets",
        "Of one processor, over ten seconds: only the polled tier has to look by itself.",
    ),
    (
        "A look, by watched ports",
        "Each port of both protocols, with series of its own (`series: dense`), on an idle host; the answer is not compressed. \
         nmap and blackbox_exporter ask the TCP ports of this host over loopback, which is the fastest there is, and leave UDP out: \
         hosts limit their answers, and a sweep of it takes hours. blackbox_exporter is asked for up to 1,000 ports.\n\n\
         ![](performance/watched.svg)",
    ),
    (
        "What is seen of what is brief",
        "Everybody looks once a second, at the same traffic at the same time: connections to a watched port, 2,000 a second; \
         listeners on five watched ports, each closed as soon as it is open. `ss` still finds a connection that was closed in \
         TIME-WAIT, for a minute; of one that was reset nothing is left.",
    ),
    (
        "What traffic pays",
        "The highest rate of connections that are opened, accepted and reset at once over loopback, by a thread for each \
         processor, with nothing else to do: the worst that can be asked of what watches.",
    ),
    (
        "Footprint",
        "From the start of the process to the end of the first scrape's answer; looked at every 2 ms.",
    ),
];

/// The tables with their words.
pub(crate) fn markdown(sections: &[Section]) -> String {
    let mut text = HEAD.to_owned();
    let _ = writeln!(text, "\nMeasured on {}.", machine());
    for section in sections {
        let words = WORDS.into_iter().find(|(title, _)| *title == section.title);
        let (title, words) = words.expect("every section has its words");
        let _ = write!(text, "\n## {title}\n\n{words}\n\n{}", section.table());
    }
    text
}

/// Writes the document, its curves, and the figures in README.
pub(crate) fn write(sections: &[Section]) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    write_into(&top.join("docs"), sections);
    let readme = top.join("README.md");
    let text = fs::read_to_string(&readme).unwrap();
    fs::write(readme, with_figures(&text, sections)).unwrap();
}

/// Writes the document and its curves into a directory.
pub(crate) fn write_into(folder: &Path, sections: &[Section]) {
    let drawings = folder.join("performance");
    fs::create_dir_all(&drawings).unwrap();
    for (title, across, file) in [
        (
            "A look, by established sockets",
            "established sockets",
            "sockets.svg",
        ),
        (
            "A look, by watched ports",
            "watched ports, of both protocols each",
            "watched.svg",
        ),
    ] {
        let section = sections.iter().find(|section| section.title == title);
        curves::draw(
            section.expect("it was measured"),
            across,
            &drawings.join(file),
        );
    }
    fs::write(folder.join("performance.md"), markdown(sections)).unwrap();
}

/// The machine, as far as it is no secret.
fn machine() -> String {
    let uname = rustix::system::uname();
    let processors = crate::support::traffic::processors();
    let debian = fs::read_to_string("/etc/debian_version").unwrap_or_default();
    let rustc = Command::new("rustc").arg("--version").output().ok();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{processors} processors, Linux {}, Debian {}, {}",
        uname
            .release()
            .to_string_lossy()
            .split('-')
            .next()
            .unwrap_or_default(),
        debian.trim(),
        rustc
            .unwrap_or_default()
            .split(" (")
            .next()
            .unwrap_or_default()
    )
}

//! The man pages and the completions of shells are what the command line's definition makes.
//!
//! `UPDATE_GOLDEN=1 cargo test --test deploy` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command as Process;

use clap_complete::Shell;
use clap_mangen::Man;
use darkport_exporter::args;

use crate::support::run;
use crate::{path, text};

const NAME: &str = "darkport_exporter";

/// When the manual last changed in more than a flag.
const DATE: &str = "2026-11-20";

/// What a manual says that the command line does not know.
const CLOSING: &str = r#".SH "EXIT STATUS"
.TP
0
The end was asked for, or what was asked for is done.
.TP
1
It could not be done; standard error says why. With \fB\-\-config.check\fR: something is wrong with a configuration.
.TP
2
The command line could not be understood.
.SH SIGNALS
.TP
\fBSIGHUP\fR
Loads the configuration anew. A bad one leaves everything as it was and is told in the log.
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
End the exporter.
.SH ENVIRONMENT
.TP
\fBDARKPORT_WEB_LISTEN_ADDRESS\fR, \fBDARKPORT_WEB_CONFIG_FILE\fR
Stand for the flags of those names where those are not given.
.TP
\fBNOTIFY_SOCKET\fR
Where the service manager is told that the exporter is ready, reloads and ends, as
.BR sd_notify (3)
has it.
.TP
\fBLISTEN_PID\fR, \fBLISTEN_FDS\fR
What systemd hands over for \fB\-\-web.systemd\-socket\fR.
.SH FILES
.TP
.I /etc/darkport_exporter/darkport.yml
The configuration, where a package installed the exporter.
.TP
.I /etc/default/darkport_exporter
The command line of the service.
.SH "SEE ALSO"
.BR capabilities (7),
.BR prometheus (1),
.BR systemd.socket (5)
"#;

/// A page of the manual for the exporter and for each of its subcommands, by file name.
fn pages() -> BTreeMap<String, String> {
    let mut command = args::definition().disable_help_subcommand(true);
    command.build();
    let subcommands = command.get_subcommands().map(|subcommand| {
        let name = format!("{NAME}-{}", subcommand.get_name());
        (format!("{name}.1"), page(subcommand.clone(), ""))
    });
    let mut pages: BTreeMap<_, _> = subcommands.collect();
    pages.insert(format!("{NAME}.1"), page(command, CLOSING));
    pages
}

fn page(command: clap::Command, closing: &str) -> String {
    let mut page = Vec::new();
    Man::new(command)
        .section("1")
        .date(DATE)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands")
        .render(&mut page)
        .unwrap();
    // A blank line is a paragraph's end by itself; breaks around it are what mandoc warns of.
    let page = String::from_utf8(page).unwrap();
    page.replace("\n.br\n\n.br\n", "\n.sp\n") + closing
}

fn completions() -> BTreeMap<String, String> {
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| {
            let mut command = args::definition();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, NAME, &mut script);
            let file = match shell {
                Shell::Zsh => format!("_{NAME}"),
                Shell::Fish => format!("{NAME}.fish"),
                _ => format!("{NAME}.bash"),
            };
            (file, String::from_utf8(script).unwrap())
        })
        .collect()
}

fn is_held(folder: &str, made: &BTreeMap<String, String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path(folder)).unwrap();
        for (file, content) in made {
            fs::write(path(folder).join(file), content).unwrap();
        }
    }
    let mut there: Vec<String> = fs::read_dir(path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, made.keys().cloned().collect::<Vec<_>>(), "{folder}");
    for (file, content) in made {
        assert!(
            text(&format!("{folder}/{file}")) == *content,
            "{folder}/{file} is not what the command line's definition makes: UPDATE_GOLDEN=1 cargo test --test deploy"
        );
    }
}

#[test]
fn the_manual_is_what_the_command_line_makes() {
    is_held("deploy/man", &pages());
}

#[test]
fn the_completions_are_what_the_command_line_makes() {
    is_held("deploy/completions", &completions());
}

/// In a real bash, as it is told by somebody who presses the tabulator.
#[test]
fn bash_completes_flags_values_and_subcommands() {
    let script = path("deploy/completions/darkport_exporter.bash");
    let complete = |words: &[&str]| -> Vec<String> {
        let index = (words.len() - 1).to_string();
        let mut arguments = vec![
            "--norc",
            "-c",
            "source \"$1\"; COMP_CWORD=$2; shift 2; COMP_WORDS=(\"$@\"); \
             _darkport_exporter \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"",
            "bash",
            script.to_str().unwrap(),
            &index,
        ];
        arguments.extend(words);
        run("bash", &arguments).lines().map(str::to_owned).collect()
    };
    assert_eq!(
        complete(&["darkport_exporter", "--web.sys"]),
        ["--web.systemd-socket"]
    );
    assert_eq!(
        complete(&["darkport_exporter", "--collector.tier", "ne"]),
        ["netlink"]
    );
    assert_eq!(complete(&["darkport_exporter", "loo"]), ["lookup"]);
}

/// What the manual's and the shells' own checkers say, where the suite has installed them.
#[test]
#[ignore = "needs root"]
fn checkers_have_nothing_to_say() {
    for page in pages().keys() {
        let page = path("deploy/man").join(page);
        let output = Process::new("mandoc")
            .args(["-Tlint", "-Wwarning"])
            .arg(&page)
            .output()
            .expect("mandoc is needed: Debian package mandoc");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.is_empty(), "{told}");
    }
    let completions = path("deploy/completions");
    for (shell, arguments, file) in [
        ("zsh", ["--no-exec", "--no-rcs"], "_darkport_exporter"),
        (
            "fish",
            ["--no-execute", "--no-config"],
            "darkport_exporter.fish",
        ),
    ] {
        let file = completions.join(file);
        run(shell, &[arguments[0], arguments[1], file.to_str().unwrap()]);
    }
}

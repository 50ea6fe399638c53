use super::*;
use crate::port::Port;
use crate::web::Host;

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("darkport_exporter").chain(line.split_whitespace()))
}

/// What a user reads when a command line is refused, which must end with status 2.
fn refused(line: &str) -> String {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

/// Every long flag and its default as the interface has them; a flag without a value has no default.
const TABLE: [(&str, Option<&str>); 19] = [
    ("config.file", None),
    ("config.check", None),
    ("config.default", None),
    ("collector.tier", Some("auto")),
    ("collector.sockets", Some("auto")),
    ("collector.poll-interval", Some("1s")),
    ("collector.tap", Some("on")),
    ("path.procfs", Some("/proc")),
    ("web.listen-address", Some(":10561")),
    ("web.telemetry-path", Some("/metrics")),
    ("web.max-requests", Some("40")),
    ("web.dashboard-url", None),
    ("log.level", Some("info")),
    ("log.format", Some("logfmt")),
    ("version", None),
    ("help", None),
    ("web.config.file", None),
    ("web.enable-lifecycle", None),
    ("web.systemd-socket", None),
];

#[test]
fn the_flags_are_those_of_the_interface_and_each_has_help() {
    let mut command = Flags::command();
    command.build();
    let mut names = Vec::new();
    for arg in command.get_arguments() {
        let name = arg.get_long().expect("every flag has a long name");
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty(), "--{name} has no help");
        assert!(!help.ends_with('.'), "--{name}: clap puts no full stop");
        let defaults: Vec<_> = arg
            .get_default_values()
            .iter()
            .filter_map(|value| value.to_str())
            .filter(|&value| value != "false")
            .collect();
        let wanted = TABLE
            .iter()
            .find(|(long, _)| *long == name)
            .unwrap_or_else(|| panic!("--{name} is not in the table"));
        assert_eq!(
            defaults,
            wanted.1.into_iter().collect::<Vec<_>>(),
            "--{name}"
        );
        names.push(name.to_owned());
    }
    for (name, _) in TABLE {
        assert!(
            names.iter().any(|found| found == name),
            "--{name} is missing"
        );
    }
    command.debug_assert();
}

#[test]
fn without_flags_it_serves_with_the_defaults() {
    let args = parse("").unwrap();
    assert_eq!(
        args,
        Args {
            command: Command::Serve,
            config_file: None,
            collector: Collector {
                tier: None,
                sockets: Choice::Auto,
                poll_interval: Duration::from_secs(1),
                tap: true,
            },
            procfs: "/proc".into(),
            web: Web {
                listen: vec![ListenAddress {
                    host: Host::Any,
                    port: 10561
                }],
                systemd_socket: false,
                config_file: None,
                enable_lifecycle: false,
                telemetry_path: TelemetryPath::default(),
                max_requests: NonZeroUsize::new(40),
                dashboard_url: None,
            },
            log: Log {
                level: Level::Info,
                format: Format::Logfmt
            },
        }
    );
}

#[test]
fn values_follow_after_a_space_or_an_equals_sign() {
    let apart = parse(
        "--config.file a.yml --collector.tier kernel --collector.sockets netstat2 --collector.poll-interval 500ms \
         --collector.tap off --path.procfs /host/proc --web.listen-address localhost:1 --web.telemetry-path /m \
         --web.config.file web.yml --web.max-requests 0 --web.dashboard-url http://h/{port} --log.level debug --log.format json",
    )
    .unwrap();
    let joined = parse(
        "--config.file=a.yml --collector.tier=kernel --collector.sockets=netstat2 --collector.poll-interval=500ms \
         --collector.tap=off --path.procfs=/host/proc --web.listen-address=localhost:1 --web.telemetry-path=/m \
         --web.config.file=web.yml --web.max-requests=0 --web.dashboard-url=http://h/{port} --log.level=debug --log.format=json",
    )
    .unwrap();
    assert_eq!(apart, joined);
    assert_eq!(apart.config_file, Some("a.yml".into()));
    assert_eq!(apart.collector.tier, Some(Tier::Kernel));
    assert_eq!(apart.collector.poll_interval, Duration::from_millis(500));
    assert!(!apart.collector.tap);
    assert_eq!(apart.web.config_file, Some("web.yml".into()));
    assert_eq!(apart.web.max_requests, None, "0 is any number");
    assert_eq!(apart.web.telemetry_path.as_str(), "/m");
}

#[test]
fn one_thing_is_done_at_a_time() {
    let command = |line| parse(line).unwrap().command;
    assert_eq!(command("--config.check"), Command::CheckConfig);
    assert_eq!(command("--config.default"), Command::PrintDefaultConfig);
    assert_eq!(command("--version"), Command::PrintVersion);
    assert_eq!(command("-V"), Command::PrintVersion);
    assert!(
        refused("--config.check --config.default")
            .contains("--config.default cannot be used together with --config.check")
    );
    assert!(refused("--config.check lookup 80").contains("together with lookup"));
}

#[test]
fn lookup_takes_ports_as_people_write_them() {
    let args = parse("lookup 561 80/tcp 609-611 --path.procfs /host/proc").unwrap();
    assert_eq!(args.procfs, PathBuf::from("/host/proc"));
    let Command::Lookup(lookup) = args.command else {
        panic!("not a lookup: {:?}", args.command);
    };
    let queries = lookup.queries.into_iter();
    let ports: Vec<Vec<Port>> = queries.map(|q| q.ports().collect()).collect();
    assert_eq!(ports[0], [Port::tcp(561), Port::udp(561)]);
    assert_eq!(ports[1], [Port::tcp(80)]);
    assert_eq!(ports[2].len(), 6);
    assert_eq!(ports[2][1], Port::udp(609));
    assert!(refused("lookup").contains("PORT"));
    assert!(refused("lookup 65536").contains("port 65536 is beyond 65535"));
    assert!(refused("lookup 611-609").contains("write 609-611"));
    assert!(refused("lookup 80/sctp").contains("tcp or udp"));
}

#[test]
fn lookup_asks_the_exporter_of_this_host_unless_told_otherwise() {
    let lookup = |line: &str| match parse(line).unwrap().command {
        Command::Lookup(lookup) => lookup,
        other => panic!("not a lookup: {other:?}"),
    };
    let default = lookup("lookup 561");
    assert_eq!(
        default.exporter.unwrap().to_string(),
        "http://127.0.0.1:10561/"
    );
    assert_eq!(default.output, Output::Table);
    let other = lookup("lookup 561 --exporter.url=http://[::1]:9 --output json");
    assert_eq!(other.exporter.unwrap().to_string(), "http://[::1]:9/");
    assert_eq!(other.output, Output::Json);
    assert_eq!(lookup("lookup 561 --exporter.url=").exporter, None);
    assert!(refused("lookup 561 --exporter.url=https://localhost").contains("without TLS"));
    assert!(refused("lookup 561 --exporter.url=http://a:b@c").contains("takes none"));
    assert!(refused("lookup 561 --exporter.url=localhost").contains("http://localhost:10561"));
}

#[test]
fn dashboards_need_a_directory_and_overwrite_only_when_told() {
    let command = |line| parse(line).unwrap().command;
    assert_eq!(
        command("dashboards --output out"),
        Command::WriteDashboards {
            output: "out".into(),
            force: false
        }
    );
    assert_eq!(
        command("dashboards --force --output=out"),
        Command::WriteDashboards {
            output: "out".into(),
            force: true
        }
    );
    assert!(refused("dashboards").contains("--output"));
}

#[test]
fn healthcheck_knows_where_the_exporter_serves() {
    let args =
        parse("healthcheck --web.listen-address :1 --web.config.file web.yml --timeout 500ms")
            .unwrap();
    assert_eq!(args.web.listen, [":1".parse().unwrap()]);
    assert_eq!(args.web.config_file, Some("web.yml".into()));
    assert_eq!(
        args.command,
        Command::CheckHealth {
            urls: Vec::new(),
            timeout: Duration::from_millis(500)
        }
    );
    let before = parse("--web.listen-address :1 healthcheck").unwrap();
    assert_eq!(before.web.listen, args.web.listen);
    let told = parse("healthcheck --url http://a/ --url https://b:1/c").unwrap();
    let Command::CheckHealth { urls, timeout } = told.command else {
        panic!("not a health check: {:?}", told.command);
    };
    assert_eq!(timeout, Duration::from_secs(3));
    assert_eq!(
        urls,
        ["http://a:80/", "https://b:1/c"].map(|url| url.parse().unwrap())
    );
    assert!(refused("healthcheck --url localhost").contains("http://localhost:10561/-/healthy"));
    assert!(refused("healthcheck --timeout 2m").contains("10ms to 1m"));
}

#[test]
fn addresses_may_stand_in_one_value_as_the_environment_has_them() {
    let several = parse("--web.listen-address :1,[::1]:2").unwrap();
    let addresses = [":1", "[::1]:2"].map(|text| text.parse().unwrap());
    assert_eq!(several.web.listen, addresses);
}

#[test]
fn probe_takes_a_host_and_ports() {
    let probe = |line: &str| match parse(line).unwrap().command {
        Command::Probe(probe) => probe,
        other => panic!("not a probe: {other:?}"),
    };
    let plain = probe("probe Db1.example --ports 1-3,22");
    assert_eq!(plain.target.to_string(), "db1.example");
    assert_eq!(
        plain.ports.iter().collect::<Vec<_>>(),
        [1, 2, 3, 22].map(Port::tcp)
    );
    assert_eq!(
        (plain.rate, plain.concurrency, plain.retries),
        (1000, 256, 1)
    );
    assert_eq!(plain.timeout, Duration::from_secs(2));
    assert!(plain.preference.ipv6 && plain.preference.fallback);
    assert_eq!(plain.output, Output::Table);
    let told = probe(
        "probe ::1 --ports 0-1 --udp --rate 5 --concurrency 2 --retries 0 --timeout 1s500ms --prefer-ipv4 --output json",
    );
    assert_eq!(told.ports.iter().collect::<Vec<_>>(), [Port::udp(1)]);
    assert_eq!((told.rate, told.concurrency, told.retries), (5, 2, 0));
    assert_eq!(told.timeout, Duration::from_millis(1500));
    assert!(!told.preference.ipv6);
    assert_eq!(told.output, Output::Json);
    for (line, word) in [
        ("probe", "HOST"),
        ("probe a", "--ports"),
        ("probe a/b --ports 1", "has a path"),
        ("probe a --ports 2-1", "write 1-2"),
        ("probe a --ports 0", "port 0"),
        ("probe a --ports 1 --rate 1000001", "--rate"),
        ("probe a --ports 1 --concurrency 0", "--concurrency"),
        ("probe a --ports 1 --retries 11", "--retries"),
        ("probe a --ports 1 --timeout 2m", "10ms to 1m"),
        ("probe a --ports 1 --output xml", "table"),
    ] {
        let message = refused(line);
        assert!(message.contains(word), "{line}: {message}");
    }
}

#[test]
fn listen_addresses_are_read_and_written_alike() {
    for text in [
        ":10561",
        "0.0.0.0:80",
        "[::]:80",
        "[::1]:0",
        "[fe80::1%eth0]:80",
        "localhost:9100",
    ] {
        assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
    }
    let several = parse("--web.listen-address :1 --web.listen-address [::1]:2").unwrap();
    assert_eq!(several.web.listen.len(), 2, "the default is replaced");
    let same_host = "LocalHost:1".parse::<ListenAddress>().unwrap();
    assert_eq!(same_host.host, Host::Name("localhost".to_owned()));
}

#[test]
fn a_bad_listen_address_names_the_cure() {
    for (text, cure) in [
        ("10561", ":10561"),
        ("localhost", "localhost:10561"),
        ("localhost:", "localhost:10561"),
        ("::1", "[::1]:10561"),
        ("::1:80", "[::1:80]:10561"),
        ("fe80::1%eth0:80", "[fe80::1%eth0]:80"),
        ("[::1", "[::1]"),
        ("[::1]80", "in brackets"),
        ("[nothing]:80", "not an IPv6 address"),
        ("[fe80::1%]:80", "zone"),
        (":65536", "port 65536 is beyond 65535"),
        (":http", "is not a port"),
        (":-1", "is not a port"),
        (":1-2", "is not a port"),
        ("1.2.3:80", "neither an address nor a host name"),
        ("a b:80", "neither an address nor a host name"),
    ] {
        let message = text.parse::<ListenAddress>().expect_err(text).to_string();
        assert!(message.contains(cure), "{text}: {message}");
    }
    assert!(
        refused("--web.listen-address :80 --web.listen-address :80")
            .contains("--web.listen-address :80 is given twice")
    );
    assert!(
        refused("--web.listen-address [::1]:80 --web.listen-address [0:0::1]:80")
            .contains("given twice")
    );
}

#[test]
fn a_bad_value_is_a_usage_error_that_names_the_flag() {
    for (line, word) in [
        ("--collector.tier ebpf", "kernel"),
        ("--collector.tap yes", "off"),
        ("--collector.poll-interval 1", "not a duration"),
        ("--collector.poll-interval 99ms", "100ms to 1h"),
        ("--collector.poll-interval 61m", "100ms to 1h"),
        ("--web.telemetry-path metrics", "/metrics"),
        ("--web.telemetry-path /", "landing page"),
        ("--web.telemetry-path /-/ready", "serves something else"),
        (
            "--web.telemetry-path /api/v1/ports",
            "serves something else",
        ),
        ("--web.telemetry-path /a?b", "'?'"),
        ("--web.telemetry-path /a/../b", "no . or .."),
        ("--web.max-requests -1", "--web.max-requests"),
        ("--web.max-requests many", "--web.max-requests"),
        ("--log.level trace", "debug"),
        ("--log.format xml", "logfmt"),
    ] {
        let message = refused(line);
        assert!(message.contains(word), "{line}: {message}");
        let flag = line.split_whitespace().next().unwrap();
        assert!(message.contains(flag), "{line}: {message}");
    }
    assert!(refused("--collector.teir auto").contains("--collector.tier"));
    assert!(refused("serve").contains("serve"));
}

#[test]
fn durations_are_written_as_prometheus_writes_them() {
    let seconds = |text| values::poll_interval(text).map(|d| d.as_secs_f64());
    assert_eq!(seconds("1s"), Ok(1.0));
    assert_eq!(seconds("1m30s"), Ok(90.0));
    assert_eq!(seconds("1h"), Ok(3600.0));
    assert_eq!(seconds("1s500ms"), Ok(1.5));
    for bad in [
        "",
        "s",
        "1",
        "1.5s",
        "-1s",
        "1s1m",
        "1s1s",
        "1d",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert!(seconds(bad).is_err(), "{bad}");
    }
}

#[test]
fn help_is_not_an_error() {
    let help = parse("--help").unwrap_err();
    assert_eq!(help.exit_code(), 0);
    let text = help.to_string();
    for (name, default) in TABLE {
        assert!(text.contains(&format!("--{name}")), "--{name}");
        if let Some(default) = default {
            assert!(text.contains(&format!("[default: {default}]")), "--{name}");
        }
    }
}

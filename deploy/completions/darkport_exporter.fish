# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_darkport_exporter_global_optspecs
    string join \n config.file= config.check config.default collector.tier= collector.sockets= collector.poll-interval= collector.tap= path.procfs= web.listen-address= web.systemd-socket web.config.file= web.enable-lifecycle web.telemetry-path= web.max-requests= web.dashboard-url= log.level= log.format= V/version h/help
end

function __fish_darkport_exporter_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_darkport_exporter_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_darkport_exporter_using_subcommand
    set -l cmd (__fish_darkport_exporter_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l config.file -d 'Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l collector.tier -d 'How to count. auto takes the best that works and logs why a better one does not; a tier named here must work. netlink costs the host up to some 2.6 µs for each socket it closes; polled costs none of that' -r -f -a "auto\t''
kernel\t''
netlink\t''
polled\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l collector.sockets -d 'Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not' -r -f -a "auto\t''
netlink\t''
netstat2\t''
procfs\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l collector.poll-interval -d 'How often the polled tier reads the socket table, 100ms to 1h' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l collector.tap -d 'Whether the kernel tier sees attempts where they enter the host, before any firewall' -r -f -a "on\t''
off\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l path.procfs -d 'Where the proc file system is mounted; in a container, the host\'s' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.listen-address -d 'Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.config.file -d 'TLS, users, headers and rate limit (YAML), in the format of Prometheus\' exporter-toolkit. Changes to it, and to the certificates it names, count without a restart' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.telemetry-path -d 'The path under which the metrics are' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.max-requests -d 'How many scrapes may run at the same time, one client having three quarters of them at the most; one more is answered with 503. 0: any number' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.dashboard-url -d 'Where /map leads to from a port: the URL of a dashboard, with {port} and {protocol} where they belong' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l log.level -d 'The least level that is logged' -r -f -a "debug\t''
info\t''
warn\t''
error\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l log.format -d 'The form of a log line, on stderr' -r -f -a "logfmt\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l config.check -d 'Validate the configuration, print every problem in it, and end: status 0 if there is none, else 1'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l config.default -d 'Print the embedded default configuration, a working and commented example, and end'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.systemd-socket -d 'Take the sockets that systemd listens on (socket activation) instead of listening on --web.listen-address'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -l web.enable-lifecycle -d 'Let POST /-/reload load the configuration anew, as SIGHUP does'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -s V -l version -d 'Print version and build, and end'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -s h -l help -d 'Print help'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -f -a "lookup" -d 'Say what the registry knows of each port, in which range it lies, what listens there now, and what an exporter that runs on this host saw there last'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -f -a "dashboards" -d 'Write the bundled Grafana dashboards, Prometheus rules and provisioning files into a directory'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -f -a "probe" -d 'Say what ports of a host answer over the network: the outside view'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -f -a "healthcheck" -d 'Ask the exporter that runs here whether it is healthy: status 0 if it is, else 1. For a container\'s health check. It is asked at --web.listen-address, and over TLS where --web.config.file says so'
complete -c darkport_exporter -n "__fish_darkport_exporter_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l exporter.url -d 'The exporter that is asked what it saw last, in plain HTTP; if none answers, lookup tells what it sees itself. Empty: none is asked' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l output -d 'The form of the answer, on standard output' -r -f -a "table\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l config.file -d 'Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l collector.sockets -d 'Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not' -r -f -a "auto\t''
netlink\t''
netstat2\t''
procfs\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l path.procfs -d 'Where the proc file system is mounted; in a container, the host\'s' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l web.listen-address -d 'Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l web.config.file -d 'TLS, users, headers and rate limit (YAML), in the format of Prometheus\' exporter-toolkit. Changes to it, and to the certificates it names, count without a restart' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l log.level -d 'The least level that is logged' -r -f -a "debug\t''
info\t''
warn\t''
error\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -l log.format -d 'The form of a log line, on stderr' -r -f -a "logfmt\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand lookup" -s h -l help -d 'Print help'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l output -d 'The directory; it is made if it is not there' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l config.file -d 'Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l collector.sockets -d 'Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not' -r -f -a "auto\t''
netlink\t''
netstat2\t''
procfs\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l path.procfs -d 'Where the proc file system is mounted; in a container, the host\'s' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l web.listen-address -d 'Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l web.config.file -d 'TLS, users, headers and rate limit (YAML), in the format of Prometheus\' exporter-toolkit. Changes to it, and to the certificates it names, count without a restart' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l log.level -d 'The least level that is logged' -r -f -a "debug\t''
info\t''
warn\t''
error\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l log.format -d 'The form of a log line, on stderr' -r -f -a "logfmt\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -l force -d 'Overwrite files that are there and differ; without it, nothing is written then'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand dashboards" -s h -l help -d 'Print help'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l ports -d 'Numbers and ranges, such as 22,80,1-1024' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l timeout -d 'How long silence is waited for before it is believed' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l retries -d 'How often a silent port is asked again, 0 to 10' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l rate -d 'Ports a second, at the most. More than the default may burden a host, and what stands before it' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l concurrency -d 'Ports at a time, at the most' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l output -d 'The form of the answer, on standard output' -r -f -a "table\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l config.file -d 'Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l collector.sockets -d 'Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not' -r -f -a "auto\t''
netlink\t''
netstat2\t''
procfs\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l path.procfs -d 'Where the proc file system is mounted; in a container, the host\'s' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l web.listen-address -d 'Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l web.config.file -d 'TLS, users, headers and rate limit (YAML), in the format of Prometheus\' exporter-toolkit. Changes to it, and to the certificates it names, count without a restart' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l log.level -d 'The least level that is logged' -r -f -a "debug\t''
info\t''
warn\t''
error\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l log.format -d 'The form of a log line, on stderr' -r -f -a "logfmt\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l udp -d 'Probe UDP ports instead of TCP ports. Each is sent an empty datagram, which few services answer'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -l prefer-ipv4 -d 'Take a name\'s IPv4 addresses rather than its IPv6 ones'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand probe" -s h -l help -d 'Print help'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l url -d 'Where to ask instead, such as http://localhost:10561/-/healthy. May be given several times; the first that answers counts' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l timeout -d 'How long the answer is waited for, 10ms to 1m' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l config.file -d 'Watch set and limits (YAML). Without it the embedded default is used, which --config.default prints' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l collector.sockets -d 'Where the socket table comes from. auto takes the first of netlink, netstat2 (Linux, macOS, Windows) and procfs (needs no netlink) that works, and logs why those before do not' -r -f -a "auto\t''
netlink\t''
netstat2\t''
procfs\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l path.procfs -d 'Where the proc file system is mounted; in a container, the host\'s' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l web.listen-address -d 'Where to serve: `:PORT` for every address, `HOST:PORT` or `[IPV6]:PORT`. May be given several times' -r
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l web.config.file -d 'TLS, users, headers and rate limit (YAML), in the format of Prometheus\' exporter-toolkit. Changes to it, and to the certificates it names, count without a restart' -r -F
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l log.level -d 'The least level that is logged' -r -f -a "debug\t''
info\t''
warn\t''
error\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -l log.format -d 'The form of a log line, on stderr' -r -f -a "logfmt\t''
json\t''"
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand healthcheck" -s h -l help -d 'Print help'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand help; and not __fish_seen_subcommand_from lookup dashboards probe healthcheck help" -f -a "lookup" -d 'Say what the registry knows of each port, in which range it lies, what listens there now, and what an exporter that runs on this host saw there last'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand help; and not __fish_seen_subcommand_from lookup dashboards probe healthcheck help" -f -a "dashboards" -d 'Write the bundled Grafana dashboards, Prometheus rules and provisioning files into a directory'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand help; and not __fish_seen_subcommand_from lookup dashboards probe healthcheck help" -f -a "probe" -d 'Say what ports of a host answer over the network: the outside view'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand help; and not __fish_seen_subcommand_from lookup dashboards probe healthcheck help" -f -a "healthcheck" -d 'Ask the exporter that runs here whether it is healthy: status 0 if it is, else 1. For a container\'s health check. It is asked at --web.listen-address, and over TLS where --web.config.file says so'
complete -c darkport_exporter -n "__fish_darkport_exporter_using_subcommand help; and not __fish_seen_subcommand_from lookup dashboards probe healthcheck help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

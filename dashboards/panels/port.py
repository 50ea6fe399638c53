"""Darkport / Port: all about one port, chosen by number and protocol."""

from .grafana import (BLUE, FILLED, GREEN, GREY, KERNEL_ONLY, NEEDS_KERNEL, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, bargauge,
                      colored, dashboard, host_column, listener_opened, mapping, override, query_variable, row, series, stat,
                      state_timeline, table, target, targets, thresholds, timeseries)

CHOSEN = ('port="$port"', 'protocol="$protocol"')


def one(family, *matchers):
    return series(family, *CHOSEN, *matchers)


def summed(families, function):
    return targets(*((f"sum({function}({one(family)}[$__rate_interval]))", name) for family, name in families))


def owners():
    return table(
        "Who listens now",
        "Every listener on the port, with its owner, on any host and address. `Expected` is empty for a port that is not watched. An "
        "unknown owner means the exporter may not read that process: its log says which capability is missing.",
        [target(one("darkport_listener_info"), table=True)],
        h=5, no_value="Dark: nothing listens on this port on the hosts that report",
        columns={"instance": "Host", "address": "Address", "process": "Process", "user": "User", "unit": "Unit",
                 "netns": "Namespace", "watch": "Watch entry", "expected": "Expected"},
        overrides=[
            host_column(),
            override("Expected", custom__cellOptions=FILLED,
                     mappings=mapping(true=("yes", GREEN), false=("no", VERMILLION))),
        ],
    )


def state_by_host():
    lit, unexpected = one("darkport_listening"), one("darkport_unexpected_listening")
    changed = f"changes({lit}[$__range] @ end()) > 0"
    state = f"sum by (instance) ({lit} + {unexpected})"
    return state_timeline(
        "Lit and dark, by host",
        "The hosts on which the port changed in the time shown, or is lit against expectation: at most 40. What began at the same "
        "moment on many hosts is a roll-out; on one host, ask who was there.",
        [target(
            f"{state} and on (instance) topk(40, sum by (instance) ({changed} or {unexpected} @ end() == 1))",
            "{{instance}}",
        )],
        h=6, no_value="The port did not change on any host in this time",
        mappings=mapping(_0=("dark", GREY), _1=("lit", SKY), _2=("lit, unexpected", VERMILLION)),
    )


def inside_against_outside():
    firewalled, unseen = (one("darkport:disagreement", f'kind="{kind}"') for kind in ("firewalled", "answers_unseen"))
    both = one("darkport:disagreement")
    return state_timeline(
        "Inside against outside",
        "What the host says of the port, held against what a probe over the network finds: at most 40 hosts, those that disagree first. "
        "Firewalled: it listens and does not answer. Answers unseen: it answers and nothing listens, so it is forwarded, or hidden from "
        "the exporter. Needs the recording rules and somebody who probes: docs/probing.md.",
        [target(
            f"max by (instance) ({firewalled} or 2 * {unseen})"
            f" and on (instance) topk(40, max by (instance) (max_over_time({both}[$__range] @ end())))",
            "{{instance}}",
        )],
        h=5, no_value="Nobody probes this port, or the recording rules are not loaded",
        mappings=mapping(_0=("agree", GREY), _1=("firewalled", SKY), _2=("answers unseen", VERMILLION)),
    )


def by_host(title, description, expr, unit, no_value, **more):
    return bargauge(title, description, [target(f"topk(20, {expr} > 0)", "{{instance}}", instant=True)],
                    w=8, h=7, unit=unit, no_value=no_value, **more)


def moment(title, description, family, no_value):
    return stat(title, description, [target(f"max({one(family)} > 0) * 1000", "newest", instant=True)], w=5,
                unit="dateTimeFromNow", no_value=no_value)


def build():
    port = query_variable(
        "port", "Port", 'label_values(darkport_watched_port_info{job=~"$job", instance=~"$instance"}, port)',
        multi=False, sort=3, allowCustomValue=True,
        description="A watched port. Any other number may be typed: its listeners are known, too.",
    )
    protocol = {
        "name": "protocol", "label": "Protocol", "type": "custom", "query": "tcp,udp", "hide": 0, "skipUrlSync": False,
        "multi": False, "includeAll": False,
        "current": {"selected": True, "text": "tcp", "value": "tcp"},
        "options": [{"selected": value == "tcp", "text": value, "value": value} for value in ("tcp", "udp")],
    }
    return dashboard(
        "darkport-port",
        "Darkport / Port",
        "All about one port: who listens, who connects, who knocks, on which host",
        [
            stat(
                "Lit on hosts",
                "Hosts on which something listens on the port, of the hosts that watch it. Unexpected ones are those no expect rule "
                "allows: see who listens below.",
                targets((f"sum({one('darkport_listening')})", "lit"),
                        (f"sum({one('darkport_unexpected_listening')})", "unexpected"),
                        (f"count({one('darkport_listening')})", "watching"), instant=True),
                w=9, unit="short", no_value="No host watches this port", text="value_and_name",
                overrides=[override("unexpected", thresholds=thresholds(BLUE, (1, VERMILLION)))],
            ),
            moment("Newest listener", "When something was last seen to begin listening, on any host.",
                   "darkport_listener_opened_timestamp_seconds", "None seen to open"),
            moment("Newest attempt", "When the newest SYN or datagram came, on any host." + KERNEL_ONLY,
                   "darkport_last_attempt_timestamp_seconds", "No attempt, or no kernel tier"),
            stat("Connections now", "Inbound connections established on the port, all hosts together. TCP only.",
                 [target(f"sum({one('darkport_connections')})", "connections", instant=True)],
                 w=5, unit="short", no_value="TCP only"),
            table(
                "What the port is",
                "What IANA's registry and the watch set say of the port; more than one row where hosts have different "
                "configurations. Nothing here: no host watches the port.",
                [target(f"count by (watch, service_name, range, assignment) ({one('darkport_watched_port_info')})", table=True)],
                h=4, no_value="No host watches this port: name it in a watch entry to count it",
                columns={"service_name": "Service", "range": "Range", "assignment": "Assignment", "watch": "Watch entry",
                         "Value": "Hosts"},
            ),
            owners(),
            state_by_host(),
            inside_against_outside(),
            row("Inbound"),
            timeseries(
                "What became of the attempts",
                "Accepted handshakes, refused because nothing listens, dropped by a firewall of the host; the sum over the hosts "
                "shown. Refused and filtered need the kernel tier; accepted is a lower bound in tier polled.",
                summed((("darkport_inbound_accepted_total", "accepted"), ("darkport_inbound_refused_total", "refused"),
                        ("darkport_inbound_filtered_total", "filtered")), "rate"),
                unit="cps", no_value="No host counts this port", stacked=True,
                overrides=colored(accepted=VERMILLION, refused=BLUE, filtered=ORANGE),
            ),
            timeseries(
                "Attempts, before any firewall",
                "SYNs and datagrams that reached an interface. What is here and neither accepted, refused nor filtered, was lost "
                "further up, or was a retry of a handshake that never completed." + KERNEL_ONLY,
                summed((("darkport_inbound_attempts_total", "attempts"),), "rate"),
                unit="cps", no_value=NEEDS_KERNEL, overrides=colored(attempts=SKY),
            ),
            by_host(
                "Attempts by host",
                "The twenty hosts with most attempts on the port in the time shown. One host alone is a target; all alike are a "
                "sweep of the network." + KERNEL_ONLY,
                f"sum by (instance) (increase({one('darkport_inbound_attempts_total')}[$__range]))",
                "short", "No attempt in this time, or no kernel tier", decimals=0,
            ),
            by_host(
                "Accepted connections by host",
                "The twenty hosts with most inbound handshakes completed on the port in the time shown. On a port that should be dark each "
                "one is a conversation to explain. TCP only.",
                f"sum by (instance) (increase({one('darkport_inbound_accepted_total')}[$__range]))",
                "short", "Nobody connected in this time", decimals=0,
            ),
            by_host(
                "Listeners opened by host",
                "How often something began to listen in the time shown. Many on one host: a unit that fails and restarts.",
                f"sum by (instance) (increase({one('darkport_listener_opened_total')}[$__range]))",
                "short", "No listener opened in this time", decimals=0,
            ),
            row("Outbound"),
            timeseries(
                "Connections to this port elsewhere",
                "Connections these hosts opened to the port on another host, or on themselves, and those that did not come about. "
                "Towards a fossil's port this is worth a question: what on this host still speaks that? Failures need the "
                "kernel tier. TCP only.",
                summed((("darkport_outbound_connections_total", "connected"), ("darkport_outbound_failures_total", "failed")), "rate"),
                w=16, h=7, unit="cps", no_value="TCP only, on a watched port",
                overrides=colored(connected=PURPLE, failed=ORANGE),
            ),
            by_host(
                "Outbound connections by host",
                "The twenty hosts that connected most to the port in the time shown. TCP only.",
                f"sum by (instance) (increase({one('darkport_outbound_connections_total')}[$__range]))",
                "short", "No connection to this port in this time", decimals=0,
            ),
        ],
        further_variables=[port, protocol],
        annotations=[listener_opened(*CHOSEN)],
    )

"""Darkport / Dark space: what does the registered space look like, and who is knocking?

From range and assignment down to blocks of 1,024 ports over time to the single port. Two protocols times 64 blocks is all a
heatmap ever draws, whatever is watched and however many hosts there are.
"""

from .grafana import (BAR, BLUE, KERNEL_ONLY, NEEDS_KERNEL, ORANGE, SERVICE, SKY, VERMILLION, annotation, bargauge, dashboard, heatmap,
                      listener_opened, override, port_column, row, series, stat, table, target, targets, thresholds,
                      timeseries)

CLASS = "protocol, range, assignment"

PORTS = series("darkport_space_ports")
LIT = series("darkport_space_lit_ports")
LIT_REGISTERED = series("darkport_space_lit_ports", 'range="registered"')
KNOCKED = series("darkport_space_knocked_ports")
KNOCKS = series("darkport_space_knocks_total")
REGISTERED = 'range="registered", assignment="assigned"'

# Above the ports from which this and most hosts open connections, so late answers to a closed client are not taken for a sweep.
SPREAD = series("darkport_block_knocks_total", 'block=~"[0-2].*|3[01].*"')


def share_of_registered():
    ports, lit = (series(family, REGISTERED) for family in ("darkport_space_ports", "darkport_space_lit_ports"))
    return stat(
        "Registered space that is dark",
        "Of the ports IANA has assigned in the registered range, TCP and UDP, the share on which nothing listens; the mean over the "
        "hosts shown. It falls when somebody starts a service: the tables below name it.",
        [target(f"1 - sum({lit}) / sum({ports})", "dark", instant=True)],
        w=6, unit="percentunit", no_value="No host reports", decimals=3,
    )


def classes():
    return table(
        "The port space, class by class",
        "Every class of ports by IANA's registry: how many it has, how many of them are lit on all hosts together, and for the mean "
        "host the share that is dark and the share that has been knocked since the exporters started; then the knocks in the time shown. Knocks spread over all classes are a sweep; "
        "knocks in assigned ones alone are somebody who knows what to look for. The last two columns need the kernel tier.",
        targets(
            (f"max by ({CLASS}) ({PORTS})",),
            (f"sum by ({CLASS}) ({LIT})",),
            (f"1 - sum by ({CLASS}) ({LIT}) / sum by ({CLASS}) ({PORTS})",),
            (f"sum by ({CLASS}) ({KNOCKED}) / sum by ({CLASS}) ({PORTS} and on (job, instance, {CLASS}) {KNOCKED})",),
            (f"sum by ({CLASS}) (increase({KNOCKS}[$__range]))",),
            table=True,
        ),
        w=16, h=11,
        no_value="No host reports",
        unit="locale",
        columns={"protocol": "Protocol", "range": "Range", "assignment": "Assignment", "Value #A": "Ports", "Value #B": "Lit, all hosts",
                 "Value #C": "Dark", "Value #D": "Knocked ports", "Value #E": "Knocks"},
        sort="Knocks",
        decimals=0,
        overrides=[
            override("Protocol", custom__width=80),
            override("Dark", unit="percentunit", decimals=2),
            override("Knocked ports", unit="percentunit", decimals=1, min=0, max=1, custom__cellOptions=BAR,
                     thresholds=thresholds(SKY, (0.5, ORANGE))),
            override("Knocks", min=0, custom__cellOptions=BAR, thresholds=thresholds(BLUE)),
        ],
    )


def lit_by_class():
    return bargauge(
        "Lit ports by range and assignment",
        "Where this host or fleet is lit. Listeners on unassigned or reserved ports are nobody's well-known service: find their "
        "owners in “What is lit”. Unwatched UDP ports in the ephemeral range count only where an explicit bind was seen "
        "(kernel tier).",
        [target(f"sum by ({CLASS}) ({LIT}) > 0", "{{range}} {{assignment}} {{protocol}}", instant=True)],
        w=8, h=11, unit="short", decimals=0, no_value="Nothing is lit, or no host reports",
        thresholds=thresholds(BLUE),
    )


def knock_heatmap(protocol):
    knocks = series("darkport_block_knocks_total", f'protocol="{protocol}"')
    return heatmap(
        f"Knocks by block, {protocol.upper()}",
        "Time to the right, the port space upwards: a cell is a block of 1,024 ports. A column from bottom to top is a sweep; a "
        "row is one service that is looked for; single cells are chance. Drag over a column to zoom to the sweep." + KERNEL_ONLY,
        [target(f"sum by (block) (rate({knocks}[$__rate_interval]))", "{{block}}")],
        unit="cps", no_value=NEEDS_KERNEL, axis="first port of the block", max_points=90, color=VERMILLION,
    )


def lit_heatmap(protocol):
    lit = series("darkport_block_lit_ports", f'protocol="{protocol}"')
    return heatmap(
        f"Lit ports by block, {protocol.upper()}",
        "How many ports are lit in each block, over time. A row that begins is a new service; one that ends has gone. Unwatched UDP "
        "ports in the ephemeral range count only where an explicit bind was seen (kernel tier).",
        [target(f"sum by (block) ({lit})", "{{block}}")],
        unit="short", no_value="No host reports", axis="first port of the block", max_points=90, color=BLUE, h=9,
    )


def new_ports_knocked():
    delta = f"sum by (instance) (clamp_min(delta({KNOCKED}[$__rate_interval]), 0))"
    top = f"topk(10, sum by (instance) (clamp_min(delta({KNOCKED}[$__range] @ end()), 0)))"
    return timeseries(
        "Distinct ports knocked for the first time",
        "Ports that had never had a knock since the exporter started, for each interval; the ten hosts with most. A peak of "
        "hundreds is a first sweep of that host. A second sweep finds no new ports: see the panel beside." + KERNEL_ONLY,
        [target(f"{delta} and on (instance) {top}", "{{instance}}")],
        unit="short", no_value=NEEDS_KERNEL, decimals=0, max_points=240,
    )


def blocks_knocked():
    spread = f"max by (instance) (count by (instance, protocol) (increase({SPREAD}[$__rate_interval]) >= 3))"
    top = f"topk(10, sum by (instance) (increase({KNOCKS}[$__range] @ end())))"
    return timeseries(
        "Blocks knocked at the same time",
        "In how many of the 32 blocks below port 32768, of one protocol, three knocks or more fell within an interval; the ten hosts "
        "most knocked. 12 or more is a sweep (alert DarkportSweep), the first or the hundredth. Find the source in the firewall's log or by a packet capture: "
        "the exporter keeps no addresses." + KERNEL_ONLY,
        [target(f"{spread} and on (instance) {top}", "{{instance}}")],
        unit="short", no_value="Knocks in no block thrice at a time, or no host in the kernel tier", decimals=0,
        max_points=120, max=32,
    )


def single_ports():
    attempts = f"sum by (port, protocol) (increase({series('darkport_inbound_attempts_total')}[$__range]))"
    return table(
        "Watched ports by attempts",
        "The single ports on which most attempts fell in the time shown, lit or dark. A port leads to all about it: which hosts, "
        "and what became of the attempts." + KERNEL_ONLY,
        [target(f"topk(50, {attempts} > 0) * {SERVICE}", table=True)],
        w=12, h=10, unit="short", decimals=0,
        no_value="No attempts on watched ports in this time, or no host in the kernel tier",
        columns={"port": "Port", "protocol": "Protocol", "service_name": "Service", "range": "Range", "Value": "Attempts"},
        sort="Attempts",
        overrides=[port_column(), override("Protocol", custom__width=80), override("Attempts", min=0, custom__cellOptions=BAR)],
    )


def what_is_lit():
    listeners = series("darkport_listener_info")
    return table(
        "What is lit",
        "Every listener, watched or not, by port and process, and on how many hosts. What you do not know here is what to look "
        "into first; name it in a watch entry to be told when it changes.",
        [target(f"topk(200, count by (port, protocol, process, user, watch) (count by (instance, port, protocol, process, user, watch) ({listeners})))", table=True)],
        w=12, h=10, unit="short", decimals=0, no_value="No host reports its listeners",
        columns={"port": "Port", "protocol": "Protocol", "process": "Process", "user": "User", "watch": "Watch entry", "Value": "Hosts"},
        sort="Hosts",
        overrides=[port_column(), override("Protocol", custom__width=80), override("Hosts", custom__width=70)],
    )


def build():
    return dashboard(
        "darkport-dark-space",
        "Darkport / Dark space",
        "What does the registered port space look like, and who is knocking?",
        [
            row("The space: range and assignment"),
            share_of_registered(),
            stat(
                "Lit ports",
                "Ports with a listener, all hosts together: of the whole space, and of the registered range alone.",
                targets((f"sum({LIT})", "whole space"),
                        (f"sum({LIT_REGISTERED})", "registered"), instant=True),
                w=6, unit="short", no_value="No host reports", text="value_and_name",
            ),
            stat(
                "Knocks",
                "Attempts on dark ports in the time shown, over the whole port space." + KERNEL_ONLY,
                [target(f"sum(increase({KNOCKS}[$__range]))", "knocks", instant=True)],
                w=6, unit="short", decimals=0, no_value="needs the kernel tier",
            ),
            stat(
                "Most distinct ports knocked on one host",
                "Since its exporter started, of 131,072 TCP and UDP ports. Tens of thousands: that host has been swept from end to end." + KERNEL_ONLY,
                [target(f"max(sum by (instance) ({KNOCKED}))", "ports", instant=True)],
                w=6, unit="locale", decimals=0, no_value="needs the kernel tier",
                thresholds=thresholds(BLUE, (1000, ORANGE), (30000, VERMILLION)),
            ),
            classes(),
            lit_by_class(),
            row("Blocks of 1,024 ports over time"),
            knock_heatmap("tcp"),
            knock_heatmap("udp"),
            blocks_knocked(),
            new_ports_knocked(),
            lit_heatmap("tcp"),
            lit_heatmap("udp"),
            row("The single port"),
            single_ports(),
            what_is_lit(),
        ],
        annotations=[
            annotation(
                "Sweep",
                f"topk(50, max by (instance) (count by (instance, protocol) (increase({SPREAD}[5m]) >= 3)) >= 12)",
                title="Sweep", text="{{instance}}", tags="instance", color=VERMILLION, step="300s",
            ),
            listener_opened(),
        ],
    )

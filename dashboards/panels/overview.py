"""Darkport / Overview: is anything lit that should be dark, on which host, since when, whose?

Queries over a whole range touch only families that are sparse (listeners, openings) or few (classes of ports); families with a
series for every watched port are asked for one moment only, so that 500 hosts are no harder to look at than one.
"""

from .grafana import (BAR, BLUE, FILLED, GREY, KERNEL_ONLY, NEEDS_KERNEL, ORANGE, RANGE_COLORS, SERVICE, SKY, VERMILLION, dashboard,
                      host_column, hosts_up, listener_opened, mapping, override, port_column, series, stat, state_timeline, table,
                      target, targets, thresholds, timeseries)

KEYS = "job, instance, port, protocol"
OWNER = "instance, port, protocol, process"

UNEXPECTED = series("darkport_listener_info", 'expected="false"')
EXPECTED = series("darkport_listener_info", 'expected="true"')
OPENED_AT = series("darkport_listener_opened_timestamp_seconds")
LISTENERS = series("darkport_listener_info")
WATCHED = series("darkport_listening")


def lit_that_should_be_dark():
    # One row a listener. Where nobody saw it open, it was there before the exporter: 0 stands for that and is shown as a text.
    since = f"{UNEXPECTED} * on ({KEYS}) group_left () ({OPENED_AT} * 1000) or {UNEXPECTED} * 0"
    return table(
        "Lit that should be dark",
        "Every listener on a watched port that no expect rule allows, with its owner. Find out from the owner whether it may be "
        "there: if it may, allow it under `expect` of its watch entry; if not, stop the unit. A port leads to all about it, a "
        "host to that host alone.",
        [target(f"topk(200, {since}) * {SERVICE}", table=True)],
        h=8,
        no_value="Nothing listens that should not, on the hosts that report",
        columns={
            "instance": "Host", "port": "Port", "protocol": "Protocol", "service_name": "Service", "watch": "Watch entry",
            "process": "Process", "user": "User", "unit": "Unit", "address": "Address", "Value": "Since",
        },
        sort="Since",
        unit="dateTimeFromNow",
        overrides=[
            port_column(),
            host_column(),
            override("Protocol", custom__width=80),
            override("Since", mappings=mapping(_0=("before the exporter started", GREY))),
            override("Process", mappings=mapping_of_unknown()),
        ],
    )


def mapping_of_unknown():
    return [
        {"type": "special", "options": {"match": match, "result": {"text": "unknown", "color": VERMILLION, "index": index}}}
        for index, match in enumerate(("empty", "null"))
    ]


def changed_ports():
    here = f"({UNEXPECTED} * 2 or {EXPECTED})"
    were_unexpected = f"last_over_time({UNEXPECTED}[$__range] @ end()) * 2"
    were_expected = f"last_over_time({EXPECTED}[$__range] @ end())"
    opened = f"(last_over_time({OPENED_AT}[$__range] @ end()) * 1000 >= ${{__from}})"
    closed = f"({were_expected} unless {EXPECTED} @ end())"
    chosen = f"{were_unexpected} or ({were_expected} and on ({KEYS}) {opened}) or {closed}"
    return state_timeline(
        "Watched ports that changed",
        "Who listened when: every unexpected listener, and the expected ones that opened or closed in the time shown; a gap is "
        "dark. At most 40 rows, unexpected ones first. A listener briefer than the scrape interval is not here but in "
        "“Opened and closed again”.",
        [target(
            f"max by ({OWNER}) {here} and on ({OWNER}) topk(40, max by ({OWNER}) ({chosen}))",
            "{{instance}} · {{port}}/{{protocol}} {{process}}",
        )],
        h=9,
        no_value="No watched port was lit or went dark in this time, but for what was expected all along",
        mappings=mapping(_1=("expected", SKY), _2=("unexpected", VERMILLION)),
    )


def came_and_went():
    opened = f"({OPENED_AT} * 1000 >= ${{__from}}) unless on ({KEYS}) {LISTENERS}"
    return table(
        "Opened and closed again",
        "Watched ports that were lit in the time shown, however briefly, and are dark now. Look up the owner in the exporter's log "
        "(msg=\"listener opened\"); what opens again and again is usually a unit that fails and restarts.",
        [target(f"topk(50, {opened}) * {SERVICE}", table=True)],
        w=10, h=9,
        no_value="No watched port was opened and closed again in this time",
        columns={"instance": "Host", "port": "Port", "protocol": "Protocol", "service_name": "Service", "Value": "Opened"},
        sort="Opened",
        unit="dateTimeFromNow",
        overrides=[port_column(), host_column(), override("Protocol", custom__width=80)],
    )


def most_knocked():
    refused = f"sum by (port, protocol) (increase({series('darkport_inbound_refused_total')}[$__range]))"
    filtered = f"sum by (port, protocol) (increase({series('darkport_inbound_filtered_total')}[$__range]))"
    return table(
        "Most knocked watched ports",
        "Attempts on dark watched ports in the time shown, refused or dropped by a firewall. A port that stands out is somebody "
        "looking for that service: open it to see which hosts." + KERNEL_ONLY,
        [target(f"topk(15, {refused} + {filtered} > 0) * {SERVICE}", table=True)],
        w=12, h=9,
        unit="short",
        no_value="No knocks in this time, or no host in the kernel tier",
        columns={"port": "Port", "protocol": "Protocol", "service_name": "Service", "Value": "Knocks"},
        sort="Knocks",
        decimals=0,
        overrides=[port_column(), override("Protocol", custom__width=80), override("Knocks", custom__cellOptions=BAR, min=0)],
    )


def knocks_over_time():
    return timeseries(
        "Knocks per second, by range",
        "Attempts on dark ports of the whole port space, by range. A steady murmur is the weather of the internet; a step or a "
        "peak is somebody: the Dark space dashboard shows where it fell." + KERNEL_ONLY,
        [target(f"sum by (range) (rate({series('darkport_space_knocks_total')}[$__rate_interval]))", "{{range}}")],
        w=12, h=9, unit="cps", no_value=NEEDS_KERNEL, stacked=True,
        max_points=240,
        overrides=RANGE_COLORS,
    )


def hosts():
    lost = f"sum by (job, instance) (increase({series('darkport_events_lost_total')}[$__range]))"
    knocks = f"sum by (job, instance) (rate({series('darkport_space_knocks_total')}[$__rate_interval]))"
    return table(
        "Hosts",
        "Every host that reports: what is lit there, how it counts, and what it knows it missed. A host in a lower tier than its "
        "neighbours lacks a capability; its log says which. Knocks are counted in the kernel tier only.",
        targets(
            (f"max by (job, instance, tier) ({series('darkport_counting_tier')} == 1)",),
            (f"sum by (job, instance) ({series('darkport_unexpected_listening')})",),
            (f"sum by (job, instance) ({WATCHED})",),
            (f"count by (job, instance) ({WATCHED})",),
            (knocks,),
            (lost,),
            table=True,
        ),
        w=14, h=9,
        no_value="No host reports: is Prometheus scraping the exporters?",
        columns={"instance": "Host", "job": "Job", "tier": "Tier", "Value #B": "Unexpected", "Value #C": "Lit",
                 "Value #D": "Watched", "Value #E": "Knocks/s", "Value #F": "Lost"},
        sort="Unexpected",
        overrides=[
            host_column(),
            override("Unexpected", custom__cellOptions=FILLED, thresholds=thresholds("transparent", (1, VERMILLION))),
            override("Knocks/s", unit="cps"),
            override("Lost", decimals=0, custom__cellOptions=FILLED, thresholds=thresholds("transparent", (1, ORANGE))),
        ],
    )


def build():
    return dashboard(
        "darkport-overview",
        "Darkport / Overview",
        "Is anything lit that should be dark, on which host, since when, whose?",
        [
            stat(
                "Unexpected listeners",
                "Watched ports on which something listens that no expect rule allows. Anything but 0 is for the table below: whose "
                "is it, and may it be there?",
                [target(f"sum({series('darkport_unexpected_listening')})", "unexpected", instant=True)],
                w=5, filled=True, unit="short", no_value="No host reports",
                thresholds=thresholds(BLUE, (1, VERMILLION)),
                mappings=mapping(_0=("0 · all dark", BLUE)),
            ),
            stat(
                "Came and went",
                "Watched ports that were opened in the time shown and are dark now, expected or not. The table “Opened and closed again” names them.",
                [target(
                    f"count(({OPENED_AT} * 1000 >= ${{__from}}) unless on ({KEYS}) {LISTENERS}) or 0 * sum({WATCHED})",
                    "came and went", instant=True,
                )],
                w=4, filled=True, unit="short", no_value="No host reports", thresholds=thresholds(BLUE, (1, ORANGE)),
            ),
            stat(
                "Knocks per second",
                "Attempts on dark ports now, over the whole port space. Compare with “Knocks per second, by range”." + KERNEL_ONLY,
                [target(f"sum(rate({series('darkport_space_knocks_total')}[$__rate_interval]))", "knocks", instant=True)],
                w=5, unit="cps", no_value="needs the kernel tier",
            ),
            stat(
                "Lit of watched",
                "How many watched ports are lit, of how many that are watched, over all hosts shown. Lit ports that are expected "
                "count too.",
                targets((f"sum({WATCHED})", "lit"), (f"count({WATCHED})", "watched"), instant=True),
                w=5, unit="short", no_value="No host reports", text="value_and_name",
            ),
            stat(
                "Hosts reporting",
                "Hosts whose exporter answers, and those Prometheus cannot scrape. A host that does not report is not dark, it is "
                "unknown: bring its exporter back.",
                targets(
                    (hosts_up(1), "reporting"),
                    (hosts_up(0), "down"),
                    instant=True,
                ),
                w=5, unit="short", no_value="No host reports", text="value_and_name",
                overrides=[override("down", thresholds=thresholds(BLUE, (1, VERMILLION)))],
            ),
            lit_that_should_be_dark(),
            changed_ports(),
            knocks_over_time(),
            most_knocked(),
            came_and_went(),
            hosts(),
        ],
        annotations=[listener_opened()],
    )

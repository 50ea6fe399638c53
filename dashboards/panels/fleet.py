"""Darkport / Fleet: hundreds of hosts at once, from the recording rules alone (prometheus/darkport.rules.yml).

No panel here touches a series of a single port, so it stays quick where Overview over all hosts would not.
"""

from .grafana import (BAR, BLUE, FILLED, KERNEL_ONLY, NEEDS_KERNEL, ORANGE, PURPLE, RANGE_COLORS, SKY, VERMILLION, bargauge, colored,
                      dashboard, host_column, hosts_up, override, series, stat, status_history, table, target, targets, thresholds,
                      timeseries, mapping)

NEEDS_RULES = "No data: are the recording rules loaded?"


def recorded(name):
    return series(name)


UNEXPECTED = recorded("instance:darkport_unexpected_listening:sum")
LIT = recorded("instance:darkport_listening:sum")
WATCHED = recorded("instance:darkport_listening:count")
KNOCKS = recorded("instance_range:darkport_space_knocks:rate5m")
LOST = recorded("instance:darkport_events_lost:rate5m")
BLOCKS = recorded("instance:darkport_block_knocks:count5m")


def build():
    hosts_lit = f"{UNEXPECTED} and on (job, instance) topk(40, max_over_time({UNEXPECTED}[$__range] @ end()) > 0)"
    return dashboard(
        "darkport-fleet",
        "Darkport / Fleet",
        "Hundreds of hosts at once, from the recording rules: which of them need a look?",
        [
            stat(
                "Hosts with unexpected listeners",
                "How many hosts have a listener that no expect rule allows. Open such a host from the table below.",
                [target(f"sum({UNEXPECTED} > bool 0)", "hosts", instant=True)],
                w=6, filled=True, unit="short", no_value=NEEDS_RULES, thresholds=thresholds(BLUE, (1, VERMILLION)),
            ),
            stat(
                "Unexpected listeners",
                "Ports that are lit and should not be, all hosts together.",
                [target(f"sum({UNEXPECTED})", "unexpected", instant=True)],
                w=6, filled=True, unit="short", no_value=NEEDS_RULES, thresholds=thresholds(BLUE, (1, VERMILLION)),
            ),
            stat(
                "Knocks per second",
                "Attempts on dark ports, all hosts together, mean over five minutes." + KERNEL_ONLY,
                [target(f"sum({KNOCKS})", "knocks", instant=True)],
                w=6, unit="cps", no_value="needs the kernel tier",
            ),
            stat(
                "Hosts reporting",
                "Hosts for which the rules found watched ports, and those Prometheus cannot scrape.",
                targets((f"count({WATCHED})", "reporting"), (hosts_up(0), "down"), instant=True),
                w=6, unit="short", no_value=NEEDS_RULES, text="value_and_name",
                overrides=[override("down", thresholds=thresholds(BLUE, (1, VERMILLION)))],
            ),
            table(
                "Hosts that need a look",
                "The hundred hosts with most unexpected listeners, then most knocks. A host leads to its overview. Knocks are "
                "counted in the kernel tier only.",
                targets(
                    (f"topk(100, sum by (job, instance) ({UNEXPECTED}) > 0)",),
                    (f"topk(100, sum by (job, instance) ({KNOCKS}))",),
                    (f"topk(100, sum by (job, instance) ({BLOCKS}))",),
                    table=True,
                ),
                w=12, h=12, unit="short", no_value=NEEDS_RULES,
                columns={"instance": "Host", "job": "Job", "Value #A": "Unexpected", "Value #B": "Knocks/s", "Value #C": "Blocks knocked"},
                sort="Unexpected",
                overrides=[
                    host_column(),
                    override("Unexpected", custom__cellOptions=FILLED, thresholds=thresholds("transparent", (1, VERMILLION))),
                    override("Knocks/s", unit="cps", custom__cellOptions=BAR, min=0),
                    override("Blocks knocked", custom__cellOptions=BAR, min=0, max=32, thresholds=thresholds(SKY, (12, ORANGE))),
                ],
            ),
            status_history(
                "Hosts with unexpected listeners, over time",
                "Hosts on which a port was lit against expectation in the time shown: at most 40. Rows that begin together are one "
                "roll-out.",
                [target(hosts_lit, "{{instance}}")],
                w=12, h=12, no_value="No host had an unexpected listener in this time",
                mappings=[
                    *mapping(_0=("dark", BLUE)),
                    {"type": "range", "options": {"from": 1, "to": None, "result": {"text": "unexpected", "color": VERMILLION, "index": 1}}},
                ],
            ),
            timeseries(
                "Knocks per second by range",
                "Knocks on all hosts together, by range. A step that all hosts share is a sweep of the network." + KERNEL_ONLY,
                [target(f"sum by (range) ({KNOCKS})", "{{range}}")],
                unit="cps", no_value=NEEDS_KERNEL, stacked=True, overrides=RANGE_COLORS,
            ),
            timeseries(
                "Hosts being swept",
                "Hosts that have three knocks or more in each of 12 or more blocks of ports at the same time. Many at once: the network is being scanned, from "
                "inside or out." + KERNEL_ONLY,
                [target(f"count({BLOCKS} >= 12) or 0 * count({KNOCKS})", "hosts swept")],
                unit="short", no_value=NEEDS_KERNEL, decimals=0,
                overrides=colored(**{"hosts swept": VERMILLION}),
            ),
            timeseries(
                "Lit ports",
                "Watched ports that are lit, and those that are lit against expectation, all hosts together. A step up is a roll-out; "
                "ask whose.",
                targets((f"sum({LIT})", "lit"), (f"sum({UNEXPECTED})", "unexpected")),
                unit="short", no_value=NEEDS_RULES, decimals=0, overrides=colored(lit=SKY, unexpected=VERMILLION),
            ),
            timeseries(
                "Conversations per second",
                "Connections accepted on watched ports, and connections opened to them elsewhere, all hosts together.",
                targets((f"sum({recorded('instance:darkport_inbound_accepted:rate5m')})", "accepted"),
                        (f"sum({recorded('instance:darkport_outbound_connections:rate5m')})", "outbound")),
                unit="cps", no_value=NEEDS_RULES, overrides=colored(accepted=ORANGE, outbound=PURPLE),
            ),
            bargauge(
                "Hosts by tier",
                "How many hosts count in which tier. Those in a lower tier than the rest lack a capability: Exporter names them.",
                [target(f"sum by (tier) ({series('darkport_counting_tier')})", "{{tier}}", instant=True)],
                h=6, unit="short", no_value="No host reports",
            ),
            bargauge(
                "Hosts that lose events",
                "The twenty hosts that lost most events per second, at their worst in the time shown. Their counts are lower "
                "bounds since.",
                [target(f"topk(20, max_over_time({LOST}[$__range]) > 0)", "{{instance}}", instant=True)],
                h=6, unit="cps", no_value="No host lost events in this time",
                thresholds=thresholds(ORANGE),
            ),
        ],
    )

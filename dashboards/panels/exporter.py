"""Darkport / Exporter: can I believe it?"""

from .grafana import (BLUE, COLORED, GREEN, ORANGE, PURPLE, SKY, VERMILLION, colored, dashboard, host_column, mapping,
                      override, row, series, stat, status_history, table, target, targets, thresholds, timeseries)

TIER = series("darkport_counting_tier")
LOST = series("darkport_events_lost_total")
HOST = "job, instance"


def top(expr, of):
    """At most ten lines: the ten that have most over the whole time shown."""
    return f"{expr} and on (instance) topk(10, {of})"


def in_tier(tier):
    return series("darkport_counting_tier", f'tier="{tier}"')


def namespaces(state):
    return series("darkport_network_namespaces", f'state="{state}"')


def tiers_over_time():
    ranks = {"kernel": 3, "netlink": 2, "polled": 1}
    now = " or ".join(f"max by (instance) (({in_tier(tier)} == 1) * {rank})" for tier, rank in ranks.items())
    return status_history(
        "Hosts that changed their tier",
        "A host that fell to a lower tier still reports, but counts less: refused, filtered and the whole port space are known in "
        "the kernel tier only. The log line \"tier\" of its exporter says why. At most 40 hosts.",
        [target(f"({now}) and on (instance) topk(40, max by (instance) (changes({TIER}[$__range] @ end())) > 0)", "{{instance}}")],
        h=6, no_value="No host changed its tier in this time",
        mappings=mapping(_1=("polled", ORANGE), _2=("netlink", SKY), _3=("kernel", BLUE)),
    )


def audit(what, title, explained):
    def rate(family):
        counter = series(family, f'what="{what}"')
        return f"sum(rate({counter}[$__rate_interval]) and on ({HOST}) {in_tier('kernel')} == 1)"

    return timeseries(
        title,
        f"{explained} as the hosts' own kernels count them, beside what the exporters counted, on hosts in the kernel tier. The lines "
        "must lie on each other. Where they part, something was missed: alert DarkportAuditDifference.",
        targets((rate("darkport_audit_host_total"), "host"), (rate("darkport_audit_counted_total"), "counted")),
        unit="cps", no_value="No data: needs the kernel tier",
        overrides=colored(host=SKY, counted=ORANGE),
    )


def audit_by_host():
    def growth(family):
        return f"increase({series(family)}[$__range])"

    host, counted = growth("darkport_audit_host_total"), growth("darkport_audit_counted_total")
    unexplained = (
        f"(abs({host} - {counted}) and on ({HOST}) {in_tier('kernel')} == 1)"
        f" or (clamp_min({counted} - {host}, 0) and on ({HOST}) {in_tier('netlink')} == 1)"
    )
    return table(
        "Audit by host: unexplained difference",
        "By how much the host's own counters and ours grew apart in the time shown, largest first, at most 100 rows. In the kernel tier "
        "both must be equal; in tier netlink, which counts watched ports, only more than the host's own is wrong. More than some events "
        "around a scrape is a defect: report it with the exporter's log.",
        targets(
            (f"topk(100, sum by (job, instance, what) ({unexplained}))",),
            (f"max by (job, instance, tier) ({TIER} == 1)",),
            table=True,
        ),
        w=12, h=8, unit="short", decimals=0, no_value="No host in tier kernel or netlink",
        columns={"instance": "Host", "what": "What", "tier": "Tier", "Value #A": "Difference"},
        sort="Difference",
        overrides=[host_column()],
    )


def build():
    return dashboard(
        "darkport-exporter",
        "Darkport / Exporter",
        "Can I believe what the exporters say? Tiers, losses, audit, collectors, configuration, cost",
        [
            stat(
                "Hosts by tier",
                "How many hosts count in which tier. Kernel sees everything; netlink sees every connection and listener on watched "
                "ports; polled is a lower bound. Give the exporter its capabilities to raise it.",
                [target(f"sum by (tier) ({TIER}) > 0", "{{tier}}", instant=True)],
                w=8, unit="short", no_value="No host reports", text="value_and_name",
            ),
            stat(
                "Events lost",
                "Events the exporters know they missed in the time shown. Anything but 0: counts are a lower bound since; the host is busier than the "
                "reader's buffer.",
                [target(f"sum(increase({LOST}[$__range]))", "lost", instant=True)],
                w=4, filled=True, unit="short", decimals=0, no_value="Every host is polled",
                thresholds=thresholds(BLUE, (1, ORANGE)),
            ),
            stat(
                "Collectors failing",
                "Collectors that did not give everything in the newest scrape. What they could not give is absent, not zero: the table below "
                "names them.",
                [target(f"sum({series('darkport_collector_success')} == bool 0)", "failing", instant=True)],
                w=4, filled=True, unit="short", no_value="No host reports", thresholds=thresholds(BLUE, (1, VERMILLION)),
            ),
            stat(
                "Reloads refused",
                "Hosts whose newest configuration was refused; they go on with the one before. The log names file, line and key.",
                [target(f"sum({series('darkport_config_last_reload_successful')} == bool 0)", "refused", instant=True)],
                w=4, filled=True, unit="short", no_value="No host reports", thresholds=thresholds(BLUE, (1, VERMILLION)),
            ),
            stat(
                "Series suppressed",
                "Series left out because of `limits` in the configuration. Raise the limit, or watch less.",
                [target(f"sum({series('darkport_series_suppressed')})", "suppressed", instant=True)],
                w=4, filled=True, unit="short", no_value="No host reports", thresholds=thresholds(BLUE, (1, ORANGE)),
            ),
            row("Does it count everything?"),
            audit("passive_opens", "Audit: accepted connections", "TCP connections accepted (PassiveOpens),"),
            audit("udp_no_ports", "Audit: UDP knocks", "Datagrams to ports without a listener (UDP NoPorts),"),
            audit_by_host(),
            timeseries(
                "Events lost by host",
                "The ten hosts that lost most in the time shown, by the source that lost them. Tables are read anew after a loss; "
                "counters do not get back what was missed.",
                [target(
                    top(f"sum by (instance, source) (rate({LOST}[$__rate_interval]))",
                        f"sum by (instance) (increase({LOST}[$__range] @ end())) > 0"),
                    "{{instance}} {{source}}",
                )],
                unit="cps", no_value="Nothing was lost in this time",
            ),
            tiers_over_time(),
            row("Does it read everything?"),
            table(
                "Collectors that fail",
                "Which collector gave less than everything in the newest scrape, on which host. `owners`: a capability to read other processes "
                "is missing; `sockets`: nothing is known of listeners; `audit`: /proc is not the host's.",
                [target(f"topk(200, 1 - {series('darkport_collector_success')} == 1)", table=True)],
                w=8, h=8, no_value="Every collector works",
                columns={"instance": "Host", "collector": "Collector"},
                overrides=[host_column()],
            ),
            table(
                "Network namespaces not read",
                "Hosts that have more network namespaces than their table covers. What listens in a container's namespace is not seen "
                "there: set `namespaces: all`, and give the exporter the capability to enter them.",
                targets(
                    (f"topk(200, sum by ({HOST}) ({namespaces('seen')}) - sum by ({HOST}) ({namespaces('read')}) > 0)",),
                    table=True,
                ),
                w=8, h=8, no_value="Every namespace that is seen is read", unit="short",
                columns={"instance": "Host", "Value": "Not read"},
                sort="Not read",
                overrides=[host_column()],
            ),
            table(
                "Suppressed series",
                "Which family is cut, on which host, and by how many series.",
                [target(f"topk(200, {series('darkport_series_suppressed')} > 0)", table=True)],
                w=8, h=8, no_value="Nothing is suppressed", unit="short",
                columns={"instance": "Host", "family": "Family", "Value": "Series"},
                sort="Series",
                overrides=[host_column()],
            ),
            table(
                "Configuration and version",
                "Version, when the configuration was last loaded with success, and whether the web configuration on disk is the one in use; "
                "a host without one has none here. A host that was refused keeps its old configuration until the file is right and it is "
                "told to reload; a web configuration is read again by itself.",
                targets(
                    (f"max by ({HOST}, version, revision) ({series('darkport_exporter_build_info')})",),
                    (f"max by ({HOST}) ({series('darkport_config_last_reload_success_timestamp_seconds')}) * 1000",),
                    (f"min by ({HOST}) ({series('darkport_config_last_reload_successful')})",),
                    (f"min by ({HOST}) ({series('darkport_web_config_last_reload_successful')})",),
                    table=True,
                ),
                w=12, h=8, no_value="No host reports",
                columns={"instance": "Host", "job": "Job", "version": "Version", "revision": "Revision", "Value #B": "Loaded",
                         "Value #C": "Last reload", "Value #D": "Web configuration"},
                overrides=[
                    host_column(),
                    override("Loaded", unit="dateTimeFromNow"),
                    *(override(column, custom__cellOptions=COLORED, mappings=mapping(_1=("accepted", GREEN), _0=("refused", VERMILLION)))
                      for column in ("Last reload", "Web configuration")),
                ],
            ),
            timeseries(
                "Clients turned away",
                "Connections and requests that the exporters' web fronts refused, by reason. `tls`, `client_certificate`, `basic_auth`: somebody "
                "has no good credentials; is it a Prometheus of yours? `rate_limit`, `overload`: more than is served. The exporter's log "
                "names each address.",
                [target(f"sum by (reason) (rate({series('darkport_web_refused_total')}[$__rate_interval]))", "{{reason}}")],
                unit="cps", h=8, no_value="No host reports",
                overrides=colored(tls=SKY, client_certificate=PURPLE, basic_auth=ORANGE, rate_limit=BLUE, overload=VERMILLION),
            ),
            row("What does it cost?"),
            timeseries(
                "Collector duration, slowest host",
                "How long each collector took in a scrape, on the slowest host. A rise of `sockets` comes with many connections in "
                "tier polled; of `owners`, with many new listeners.",
                [target(f"max by (collector) ({series('darkport_collector_duration_seconds')})", "{{collector}}")],
                unit="s", no_value="No host reports",
                overrides=colored(sockets=BLUE, owners=ORANGE, kernel=GREEN, netlink=SKY, audit=PURPLE),
            ),
            timeseries(
                "Series in a scrape",
                "Samples Prometheus took from the ten largest exporters. It follows what is watched, never what is sent to the host; if it grows, the "
                "watch set or an `active` entry does.",
                [target(top(f"sum by (instance) ({series('scrape_samples_scraped')})",
                            f"sum by (instance) (last_over_time({series('scrape_samples_scraped')}[$__range] @ end()))"), "{{instance}}")],
                unit="short", no_value="Prometheus has no scrape statistics for these targets",
            ),
            timeseries(
                "CPU",
                "CPU time used by the ten busiest exporters, as a share of one core. In the kernel tier it follows the scrapes, not the "
                "traffic.",
                [target(top(f"sum by (instance) (rate({series('process_cpu_seconds_total')}[$__rate_interval]))",
                            f"sum by (instance) (rate({series('process_cpu_seconds_total')}[$__rate_interval] @ end()))"), "{{instance}}")],
                unit="percentunit", no_value="No host reports",
            ),
            timeseries(
                "Memory",
                "Resident memory of the ten largest exporters. It should be flat; report one that climbs for days.",
                [target(top(f"sum by (instance) ({series('process_resident_memory_bytes')})",
                            f"sum by (instance) (last_over_time({series('process_resident_memory_bytes')}[$__range] @ end()))"), "{{instance}}")],
                unit="bytes", no_value="No host reports",
            ),
        ],
    )

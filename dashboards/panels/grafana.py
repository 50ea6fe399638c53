"""Grafana's classic dashboard model, as far as these dashboards use it. Knows nothing of what is shown."""

import copy

GRAFANA = "11.0.0"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What every selector carries.
SELECT = 'job=~"$job", instance=~"$instance"'

# Okabe and Ito's colours, told apart by every kind of colour vision. A state is never told by colour alone: it has a text too.
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE, YELLOW = "#E69F00", "#D55E00", "#CC79A7", "#F0E442"
GREY = "#808080"

NEEDS_KERNEL = "No data: needs the kernel tier"
KERNEL_ONLY = " Only hosts in the kernel tier count this; the panel stays empty without one."


def series(family, *matchers):
    """A selector with what every selector carries."""
    return f"{family}{{{', '.join([SELECT, *matchers])}}}"


def hosts_up(value):
    """How many hosts have an exporter that Prometheus reaches (1) or does not (0). What else it scrapes, hosts that are probed among
    them, is no exporter: it never had the build's facts."""
    return (f"sum({series('up')} == bool {value}"
            f" and on (job, instance) last_over_time({series('darkport_exporter_build_info')}[1d]))")


# The name of a port's service, as most hosts have it. Summed up first: to join with a series for every watched port of every host is
# what makes a query slow.
_FACTS = series("darkport_watched_port_info")
_BY_PORT = "port, protocol, service_name, range"
SERVICE = (
    "on (port, protocol) group_left (service_name, range) "
    f"group by ({_BY_PORT}) (topk by (port, protocol) (1, count by ({_BY_PORT}) ({_FACTS})))"
)


def target(expr, legend="", *, instant=False, table=False, ref="A"):
    """A query. A table is instant, too."""
    instant = instant or table
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": " ".join(expr.split()),
        "legendFormat": legend or "__auto",
        "format": "table" if table else "time_series",
        "instant": instant,
        "range": not instant,
    }


def targets(*rows, **options):
    """Several queries, lettered."""
    return [target(*row, ref=chr(ord("A") + index), **options) for index, row in enumerate(rows)]


def thresholds(base, *steps):
    """Colours from values on: thresholds(BLUE, (1, VERMILLION))."""
    return {
        "mode": "absolute",
        "steps": [{"color": base, "value": None}, *({"color": color, "value": value} for value, color in steps)],
    }


def mapping(**values):
    """Texts and colours for values: mapping(_0=("dark", BLUE))."""
    return [
        {
            "type": "value",
            "options": {
                value.lstrip("_"): {"text": shown, "color": color, "index": index}
                for index, (value, (shown, color)) in enumerate(values.items())
            },
        }
    ]


def override(name, **properties):
    """What one field has of its own; `custom__width=90` sets the property custom.width."""
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def panel(kind, title, description, queries, *, w, h, unit, no_value, **more):
    """A panel; `custom`, `overrides`, `options`, `transformations`, `max_points` and field defaults as further arguments."""
    custom = more.pop("custom", {})
    overrides = more.pop("overrides", [])
    options = more.pop("options", {})
    transformations = more.pop("transformations", None)
    max_points = more.pop("max_points", None)
    model = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": w, "h": h},
        "pluginVersion": GRAFANA,
        "fieldConfig": {
            "defaults": {
                "unit": unit,
                "noValue": no_value,
                "color": more.pop("color", {"mode": "thresholds"}),
                "thresholds": more.pop("thresholds", thresholds(BLUE)),
                "mappings": more.pop("mappings", []),
                "custom": custom,
                **more,
            },
            "overrides": overrides,
        },
        "options": options,
        "targets": queries,
    }
    if transformations:
        model["transformations"] = transformations
    if max_points:
        model["maxDataPoints"] = max_points
    return model


def stat(title, description, queries, *, w=4, h=4, unit="none", no_value="No data", sparkline=False, filled=False,
         text="auto", **more):
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": text,
        "wideLayout": True,
        "colorMode": "background" if filled else "value",
        "graphMode": "area" if sparkline else "none",
        "justifyMode": "auto",
        "showPercentChange": False,
    }
    return panel("stat", title, description, queries, w=w, h=h, unit=unit, no_value=no_value, options=options,
                 max_points=100, **more)


def timeseries(title, description, queries, *, w=12, h=8, unit, no_value, stacked=False, **more):
    custom = {
        "drawStyle": "line",
        "lineInterpolation": "stepAfter",
        "lineWidth": 0 if stacked else 2,
        "fillOpacity": 80 if stacked else 8,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "axisPlacement": "auto",
        "axisSoftMin": 0,
        "axisLabel": more.pop("axis", ""),
        "thresholdsStyle": {"mode": "off"},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"],
                   "sortBy": "Max", "sortDesc": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    more.setdefault("color", {"mode": "palette-classic-by-name"})
    more.setdefault("min", 0)
    return panel("timeseries", title, description, queries, w=w, h=h, unit=unit, no_value=no_value, custom=custom,
                 options=options, **more)


def colored(**colors):
    """Overrides that give named series their colour, the same on every dashboard."""
    return [override(name, color={"mode": "fixed", "fixedColor": color}) for name, color in colors.items()]


RANGE_COLORS = colored(well_known=ORANGE, registered=BLUE, dynamic=PURPLE)


def heatmap(title, description, queries, *, w=12, h=14, unit, no_value, axis, max_points, color):
    options = {
        "calculate": False,
        "rowsFrame": {"layout": "ge", "value": "Value"},
        # From the colour of the page to one colour: readable in either theme and by every eye. The exponent keeps what is little
        # visible beside one block that is flooded.
        "color": {"mode": "opacity", "fill": color, "scale": "exponential", "exponent": 0.4, "steps": 64, "scheme": "Oranges",
                  "reverse": False},
        "filterValues": {"le": 1e-9},
        "cellGap": 1,
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "none", "decimals": 0, "axisLabel": axis},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": True},
    }
    custom = {"hideFrom": {"legend": False, "tooltip": False, "viz": False}, "scaleDistribution": {"type": "linear"}}
    options["cellValues"] = {"unit": unit}
    return panel("heatmap", title, description, queries, w=w, h=h, unit=unit, no_value=no_value, options=options,
                 custom=custom, max_points=max_points)


def state_timeline(title, description, queries, *, w=24, h=8, no_value, mappings, max_points=200, **more):
    options = {
        "mergeValues": True,
        "showValue": "auto",
        "alignValue": "left",
        "rowHeight": 0.85,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 85, "lineWidth": 0, "spanNulls": False, "insertNulls": False}
    return panel("state-timeline", title, description, queries, w=w, h=h, unit="none", no_value=no_value, options=options,
                 custom=custom, mappings=mappings, max_points=max_points, **more)


def status_history(title, description, queries, *, w=24, h=8, no_value, mappings, max_points=60, **more):
    options = {
        "showValue": "never",
        "rowHeight": 0.9,
        "colWidth": 0.95,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    custom = {"fillOpacity": 85, "lineWidth": 0}
    return panel("status-history", title, description, queries, w=w, h=h, unit="none", no_value=no_value,
                 options=options, custom=custom, mappings=mappings, max_points=max_points, **more)


def bargauge(title, description, queries, *, w=12, h=8, unit, no_value, **more):
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 14,
        "maxVizHeight": 28,
    }
    more.setdefault("min", 0)
    return panel("bargauge", title, description, queries, w=w, h=h, unit=unit, no_value=no_value, options=options, **more)


def table(title, description, queries, *, w=24, h=8, unit="none", no_value, columns, sort=None, overrides=(), **more):
    """`columns`: what the query's columns are called, in the order in which they are shown; all others are hidden."""
    merged = len(queries) > 1
    transformations = [{"id": "merge", "options": {}}] if merged else []
    names = list(columns)
    transformations.append({
        "id": "filterFieldsByName",
        "options": {"include": {"names": names}},
    })
    transformations.append({
        "id": "organize",
        "options": {
            "excludeByName": {},
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": {name: shown for name, shown in columns.items() if shown != name},
        },
    })
    options = {
        "showHeader": True,
        "cellHeight": "sm",
        "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
        "sortBy": [{"displayName": sort, "desc": True}] if sort else [],
    }
    custom = {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False}
    return panel("table", title, description, queries, w=w, h=h, unit=unit, no_value=no_value, options=options,
                 custom=custom, overrides=list(overrides), transformations=transformations, **more)


BAR = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
COLORED = {"type": "color-text"}
FILLED = {"type": "color-background", "mode": "basic"}


def port_column(port="Port", protocol="Protocol"):
    """A column of ports that leads to all about the port."""
    return override(port, links=[to_port(f"${{__data.fields.{port}}}", f"${{__data.fields.{protocol}}}")], custom__width=80)


def host_column(name="Host"):
    """A column of hosts that narrows the overview to the host."""
    return override(name, links=[{
        "title": "Overview of ${__value.text}",
        "url": "/d/darkport-overview?${datasource:queryparam}&${job:queryparam}&var-instance=${__value.text}&${__url_time_range}",
        "targetBlank": False,
    }])


def to_port(port, protocol):
    return {
        "title": f"All about {port}/{protocol}",
        "url": "/d/darkport-port?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
               f"&var-port={port}&var-protocol={protocol}&${{__url_time_range}}",
        "targetBlank": False,
    }


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"w": 24, "h": 1}}


def laid_out(panels):
    """Gives panels ids and places: left to right, and below when the row is full."""
    x = y = height = 0
    placed = []
    for number, item in enumerate(panels, start=1):
        item = copy.deepcopy(item)
        grid = item["gridPos"]
        if x + grid["w"] > 24:
            x, y, height = 0, y + height, 0
        item["id"] = number
        item["gridPos"] = {"h": grid["h"], "w": grid["w"], "x": x, "y": y}
        x, height = x + grid["w"], max(height, grid["h"])
        placed.append(item)
    return placed


def query_variable(name, label, query, *, multi=True, sort=1, **more):
    model = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"PrometheusVariableQueryEditor-{name}"},
        "definition": query,
        "refresh": 2,
        "sort": sort,
        "regex": "",
        "hide": 0,
        "skipUrlSync": False,
        "multi": multi,
        "includeAll": multi,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]} if multi else {},
        **more,
    }
    if multi:
        model["allValue"] = ".+"
    return model


def variables(*further):
    """What every dashboard is narrowed by. One series a host answers job and instance, whatever is watched."""
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "regex": "",
            "refresh": 1,
            "hide": 0,
            "skipUrlSync": False,
            "multi": False,
            "includeAll": False,
            "options": [],
            "current": {},
        },
        query_variable("job", "Job", "label_values(darkport_exporter_build_info, job)"),
        query_variable("instance", "Instance", 'label_values(darkport_exporter_build_info{job=~"$job"}, instance)'),
        *further,
    ]


def annotation(name, expr, *, title, text, color, tags="", step="60s", value_is_time=False):
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": " ".join(expr.split()),
        "step": step,
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": tags,
        "useValueForTime": "on" if value_is_time else False,
        "target": {"refId": "Anno"},
    }


# The newest openings, at the moment at which they happened, however rarely Prometheus looks.
def listener_opened(*matchers):
    opened = series("darkport_listener_opened_timestamp_seconds", *matchers)
    return annotation(
        "Listener opened",
        f"topk(100, {opened} * 1000 >= ${{__from}})",
        title="Listener opened on {{port}}/{{protocol}}",
        text="{{instance}}",
        tags="instance,port,protocol",
        color=ORANGE,
        value_is_time=True,
    )


def dashboard(uid, title, description, panels, *, further_variables=(), annotations=(), time="now-6h"):
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["darkport"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "liveNow": False,
        "refresh": "1m",
        "timezone": "browser",
        "weekStart": "",
        "time": {"from": time, "to": "now"},
        "timepicker": {},
        "annotations": {"list": list(annotations)},
        "links": [{
            "type": "dashboards",
            "title": "Darkport",
            "tags": ["darkport"],
            "asDropdown": False,
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "icon": "external link",
            "tooltip": "",
            "url": "",
        }],
        "templating": {"list": variables(*further_variables)},
        "panels": laid_out(panels),
    }


PANEL_NAMES = {
    "bargauge": "Bar gauge",
    "heatmap": "Heatmap",
    "stat": "Stat",
    "state-timeline": "State timeline",
    "status-history": "Status history",
    "table": "Table",
    "timeseries": "Time series",
}


def for_library(model):
    """The same dashboard as Grafana's public library and its import page want it: what it needs is listed in front."""
    kinds = sorted({item["type"] for item in model["panels"]} - {"row"})
    wanted = [
        {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA},
        {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        *({"type": "panel", "id": kind, "name": PANEL_NAMES[kind], "version": ""} for kind in kinds),
    ]
    inputs = [{
        "name": "DS_PROMETHEUS",
        "label": "Prometheus",
        "description": "The Prometheus that scrapes darkport_exporter",
        "type": "datasource",
        "pluginId": "prometheus",
        "pluginName": "Prometheus",
    }]
    chosen = {"selected": False, "text": "Prometheus", "value": "${DS_PROMETHEUS}"}
    templating = {"list": [
        {**variable, "current": chosen} if variable["type"] == "datasource" else variable
        for variable in model["templating"]["list"]
    ]}
    return {"__inputs": inputs, "__elements": {}, "__requires": wanted, **model, "templating": templating}

"""What all panels and dashboards share: data source, grid, styles, links."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent
SCHEMA_VERSION = 39  # Grafana 11.0
DATA_SOURCE = {"type": "prometheus", "uid": "daybook-prometheus"}
SELECTOR = 'job="$job", instance=~"$instance"'
SOURCE = SELECTOR + ', source=~"$source"'

# Colours mean the same on every dashboard.
GOOD, SOSO, BAD, CALM = "green", "orange", "red", "blue"



def read_runbook():
    """The runbook's sections in their order: title and text; the first one is its head."""
    text = (HERE.parent / "docs" / "runbook.md").read_text()
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    named = [tuple(section.split("\n", 1)) for section in sections]
    return [("Runbook", head.split("\n", 1)[1])] + named


RUNBOOK = read_runbook()


def section_link(title):
    """The runbook is a dashboard too, a panel a section, so that links lead somewhere everywhere."""
    number = [name for name, _ in RUNBOOK].index(title) + 1
    return f"/d/daybook-runbook?viewPanel={number}"


def target(expr, legend="", **more):
    return {"expr": expr, "legendFormat": legend or "__auto", **more}


def steps(*pairs):
    """Thresholds: colours from a value on; the first one from the bottom."""
    first, rest = pairs[0], pairs[1:]
    return {
        "mode": "absolute",
        "steps": [{"color": first, "value": None}]
        + [{"color": colour, "value": value} for colour, value in rest],
    }


def panel(kind, title, description, targets, unit="short", width=8, height=8, **more):
    """One panel. `runbook` is an alert's name, `audit` a query of the timeline's page."""
    links = []
    if runbook := more.pop("runbook", None):
        links.append({"title": f"Runbook: {runbook}", "url": section_link(runbook), "targetBlank": True})
    if (audit := more.pop("audit", None)) is not None:
        links.append({"title": "In the timeline", "url": "${daybook}/audit" + audit, "targetBlank": True})
    defaults = {"unit": unit, "min": more.pop("min", 0)}
    if "max" in more:
        defaults["max"] = more.pop("max")
    defaults["thresholds"] = more.pop("thresholds", steps(GOOD))
    if mappings := more.pop("mappings", None):
        defaults["mappings"] = mappings
    custom, options = STYLES[kind](more)
    if custom:
        defaults["custom"] = custom
    body = {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATA_SOURCE,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATA_SOURCE, "editorMode": "code", "range": True, **each}
            for index, each in enumerate(targets)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        "options": options,
        "links": links,
        "size": (width, height),
    }
    if transformations := more.pop("transformations", None):
        body["transformations"] = transformations
    assert not more, f"{title}: unknown {sorted(more)}"
    return body


def style_timeseries(more):
    stack = more.pop("stack", False)
    line = more.pop("line", False)  # whether thresholds are drawn
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if line else "off"},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return custom, options


def style_stat(more):
    options = {
        "colorMode": "value",
        "graphMode": more.pop("graph", "area"),
        "justifyMode": "auto",
        "textMode": more.pop("text", "auto"),
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return {}, options


def style_gauge(_more):
    return {}, {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "showThresholdMarkers": True}


def style_heatmap(_more):
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "yAxis": {"unit": "s", "axisPlacement": "left"},
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "filterValues": {"le": 1e-9},
    }
    return {"scaleDistribution": {"type": "linear"}}, options


def style_state_timeline(_more):
    return {"fillOpacity": 80, "lineWidth": 0}, {
        "mergeValues": True,
        "showValue": "never",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single"},
    }


def style_table(_more):
    return {"align": "auto", "cellOptions": {"type": "auto"}}, {"showHeader": True, "cellHeight": "sm"}


def style_bargauge(_more):
    return {}, {
        "displayMode": "gradient",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


STYLES = {
    "timeseries": style_timeseries,
    "stat": style_stat,
    "gauge": style_gauge,
    "heatmap": style_heatmap,
    "state-timeline": style_state_timeline,
    "table": style_table,
    "bargauge": style_bargauge,
}

UP_DOWN = [
    {
        "type": "value",
        "options": {"0": {"text": "down", "color": BAD, "index": 0}, "1": {"text": "up", "color": GOOD, "index": 1}},
    }
]
SUSPENDED = [
    {
        "type": "value",
        "options": {
            "0": {"text": "works", "color": GOOD, "index": 0},
            "1": {"text": "suspended", "color": BAD, "index": 1},
        },
    }
]


def query_variable(name, label, expr, metric_label, multi=True):
    query = f"label_values({expr}, {metric_label})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATA_SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": multi,
        **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if multi else {}),
    }


def text_variable(name, label, value):
    option = {"text": value, "value": value, "selected": True}
    return {"type": "textbox", "name": name, "label": label, "query": value, "current": option, "options": [option]}


def dashboard(uid, title, description, rows, with_source=True):
    panels, y, number = [], 0, 0
    for name, members in rows:
        number += 1
        panels.append(
            {
                "type": "row",
                "id": number,
                "title": name,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }
        )
        y += 1
        x, tallest = 0, 0
        for each in members:
            number += 1
            width, height = each.pop("size")
            if x + width > 24:
                x, y, tallest = 0, y + tallest, 0
            panels.append({"id": number, **each, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
            x, tallest = x + width, max(tallest, height)
        y += tallest
    variables = [
        query_variable("job", "Job", "daybook_build_info", "job", multi=False),
        query_variable("instance", "Instance", 'daybook_build_info{job="$job"}', "instance"),
    ]
    if with_source:
        variables.append(query_variable("source", "Source", "daybook_source_info{%s}" % SELECTOR, "source"))
    variables.append(text_variable("daybook", "Daybook's address", "http://localhost:8080"))
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["daybook"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables},
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATA_SOURCE,
                    "enable": True,
                    "iconColor": BAD,
                    "expr": 'ALERTS{alertname=~"Daybook.*", alertstate="firing"}',
                    "titleFormat": "{{alertname}}",
                    "textFormat": "{{source}}{{actor}}",
                },
                {
                    "name": "Starts",
                    "datasource": DATA_SOURCE,
                    "enable": True,
                    "iconColor": CALM,
                    "expr": "resets(daybook_writer_flush_seconds_count{%s}[1m]) > 0" % SELECTOR,
                    "titleFormat": "Daybook was started",
                },
            ]
        },
        "links": [
            {"type": "dashboards", "tags": ["daybook"], "title": "Daybook", "asDropdown": True, "includeVars": True, "keepTime": True},
            {"type": "link", "title": "Timeline", "url": "${daybook}/audit", "targetBlank": True},
            {"type": "link", "title": "Runbook", "url": "/d/daybook-runbook", "targetBlank": True},
        ],
        "panels": panels,
    }


def rate(metric, by, selector=SOURCE):
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def quantile(q, metric, by=""):
    by = f"{by}, le" if by else "le"
    selector = SOURCE if "source" in by else SELECTOR
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))"


def heatmap(title, description, metric, selector, **more):
    expr = f"sum by (le) (increase({metric}_bucket{{{selector}}}[$__rate_interval]))"
    return panel("heatmap", title, description, [target(expr, "{{le}}", format="heatmap")], "short", **more)




def runbook_dashboard():
    panels, y = [], 0
    for number, (title, text) in enumerate(RUNBOOK, start=1):
        # Links within the runbook lead from panel to panel; those to other pages lose their target.
        anchors = {re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-"): name for name, _ in RUNBOOK}
        text = re.sub(r"\]\(#([^)]+)\)", lambda found: f"]({section_link(anchors[found[1]])})", text)
        text = re.sub(r"\[([^\]]+)\]\((?!/d/)[^)]+\)", r"\1", text)
        height = max(6, 3 + len(text) // 110)
        panels.append(
            {
                "id": number,
                "type": "text",
                "title": title,
                "options": {"mode": "markdown", "content": text.strip()},
                "gridPos": {"x": 0, "y": y, "w": 24, "h": height},
            }
        )
        y += height
    return {
        "uid": "daybook-runbook",
        "title": "Daybook: runbook",
        "description": "docs/runbook.md: what each alert means and what to do.",
        "tags": ["daybook"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }

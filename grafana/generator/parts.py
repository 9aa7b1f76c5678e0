"""The parts that dashboards are made of: targets, panels, links, and the grid."""

from colours import GREEN, GREY, NEUTRAL, RED, TOWARDS_ALL, VERSION_COLOURS, coloured_words, nothing, thresholds
from queries import promql
from variables import DATASOURCE

TAG = "cloudtrail-tls"
SOURCE_LEGEND = "{{cluster}} {{namespace}} {{source}}"

# Links

_SAME = "&".join(
    ["${__url_time_range}"]
    + ["${" + name + ":queryparam}" for name in ("datasource", "cluster", "namespace", "job", "instance")]
)


def panel_link(title: str, uid: str) -> list[dict]:
    """From a panel's corner to the dashboard that has the next answer, with all variables."""
    return [{"title": title, "type": "link", "url": f"/d/{uid}?${{__url_time_range}}&${{__all_variables}}"}]


TO_OVERVIEW = panel_link("What is outdated", "cloudtrail-tls-overview")
TO_SERVICE = panel_link("Which calls, which callers", "cloudtrail-tls-service")
TO_MIGRATION = panel_link("How far the move is", "cloudtrail-tls-migration")
TO_EXPORTER = panel_link("Whether the exporter sees", "cloudtrail-tls-exporter")


def _value(where: str, name: str) -> str:
    return (
        "${__data.fields." + name + ":percentencode}"
        if where == "row"
        else "${__field.labels." + name + ":percentencode}"
    )


def callers_link(where: str, source: str, account: str | None = None, service: str | None = None) -> list[dict]:
    """From a `row` of a table or a `series` of a graph to the calls and callers behind it.

    What the row or series does not tell keeps the value of its variable.
    """
    parts = [_SAME, f"var-source={_value(where, source)}"]
    parts.append(f"var-account={_value(where, account)}" if account else "${account:queryparam}")
    parts.append(f"var-service={_value(where, service)}" if service else "${service:queryparam}")
    return [{"title": "Calls and callers", "url": "/d/cloudtrail-tls-service?" + "&".join(parts), "targetBlank": False}]


# Panels


def _targets(queries, instant: bool, table: bool = False, min_step: str | None = None) -> list[dict]:
    made = []
    for number, (expr, legend) in enumerate(queries):
        target = {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": promql(expr),
            "instant": instant,
            "range": not instant,
            "format": "table" if table else "time_series",
            "legendFormat": legend,
        }
        made.append(target)
        if min_step:
            target["interval"] = min_step
    return made


def _panel(kind: str, title: str, description: str, unit: str, links, size: tuple[int, int]) -> dict:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "links": links,
        "gridPos": {"h": size[1], "w": size[0], "x": 0, "y": 0},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
    }


def _reduced() -> dict:
    return {"calcs": ["lastNotNull"], "fields": "", "values": False}


def stat(
    title, description, unit, expr, *, links, size=(4, 4), steps=NEUTRAL, empty="no data", legend=SOURCE_LEGEND, **more
) -> dict:
    """One number for each source, of the moment: an exporter that is gone shows no number of before.

    `empty` is what it says then, in `empty_colour`. `mappings` are words for values, `background` colours the whole
    panel, `name_only` shows the legend alone.
    """
    made = _panel("stat", title, description, unit, links, size)
    made["targets"] = _targets([(expr, legend)], instant=True)
    defaults = made["fieldConfig"]["defaults"]
    defaults["thresholds"] = steps
    defaults["color"] = {"mode": "thresholds"}
    defaults["noValue"] = empty
    defaults["mappings"] = [*more.get("mappings", []), nothing(empty, more.get("empty_colour", GREY))]
    if "decimals" in more:
        defaults["decimals"] = more["decimals"]
    made["options"] = {
        "colorMode": "background" if more.get("background") else "value",
        "graphMode": "none",
        "textMode": "name" if more.get("name_only") else "auto",
        "reduceOptions": _reduced(),
    }
    if unit == "dateTimeFromNow":  # long: one below the other is larger
        made["options"] |= {"orientation": "horizontal", "wideLayout": False}
    return made


def gauge(title, description, expr, *, links, size=(4, 6)) -> dict:
    """A share of the moment, from 0 to 1."""
    made = _panel("gauge", title, description, "percentunit", links, size)
    made["targets"] = _targets([(expr, SOURCE_LEGEND)], instant=True)
    made["fieldConfig"]["defaults"] |= {
        "min": 0,
        "max": 1,
        "decimals": 1,
        "thresholds": TOWARDS_ALL,
        "color": {"mode": "thresholds"},
        "noValue": "no data",
        "mappings": [nothing("no data")],
    }
    made["options"] = {"reduceOptions": _reduced(), "showThresholdMarkers": True}
    return made


def timeseries(title, description, unit, queries, *, links, size=(12, 8), overrides=(), min_step=None, **more) -> dict:
    """Lines, never stacked: a stack adds the sources that it shows. `queries` are (expression, legend).

    `empty` is what the panel says without any line. Up to `soft_max` the axis reaches at least: without it, lines at 0
    have one up to 100, and 100 is 10000 %.
    """
    made = _panel("timeseries", title, description, unit, links, size)
    made["targets"] = _targets(queries, instant=False, min_step=min_step)
    defaults = made["fieldConfig"]["defaults"]
    defaults["color"] = more.get("colour", {"mode": "palette-classic"})
    if "empty" in more:
        defaults["noValue"] = more["empty"]
    defaults["custom"] = {"lineWidth": 2, "fillOpacity": 0, "showPoints": "auto", "spanNulls": False}
    if "soft_max" in more:
        defaults["custom"]["axisSoftMax"] = more["soft_max"]
    defaults["min"] = 0
    if "max" in more:
        defaults["max"] = more["max"]
    if "series_links" in more:
        defaults["links"] = more["series_links"]
    if more.get("signed"):
        del defaults["min"]
    made["fieldConfig"]["overrides"] = list(overrides)
    made["options"] = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return made


def column(name: str, *properties: dict) -> dict:
    return {"matcher": {"id": "byName", "options": name}, "properties": list(properties)}


def unit(name: str) -> dict:
    return {"id": "unit", "value": name}


def width(pixels: int) -> dict:
    return {"id": "custom.width", "value": pixels}


WRAPPED = {"id": "custom.cellOptions", "value": {"type": "auto", "wrapText": True}}

# What a panel says without any row is not for a cell without a value.
EMPTY_CELLS = [
    {"matcher": {"id": "byType", "options": kind}, "properties": [{"id": "noValue", "value": ""}]}
    for kind in ("string", "number")
]

# An account is twelve digits: with a number's unit, Grafana shows it as 111 Bil.
TEXTS_AS_THEY_ARE = {"matcher": {"id": "byType", "options": "string"}, "properties": [unit("string")]}


def row_links(links: list[dict]) -> dict:
    return {"id": "links", "value": links}


GAUGE_CELL = [
    unit("percentunit"),
    {"id": "min", "value": 0},
    {"id": "max", "value": 1},
    {"id": "thresholds", "value": TOWARDS_ALL},
    {"id": "color", "value": {"mode": "thresholds"}},
    {"id": "custom.cellOptions", "value": {"type": "gauge", "mode": "basic"}},
]


def coloured_number(steps: dict) -> list[dict]:
    """For a column: a cell is coloured by its number."""
    return [
        {"id": "thresholds", "value": steps},
        {"id": "color", "value": {"mode": "thresholds"}},
        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
    ]


SIGNED = thresholds((None, RED), (-0.001, "text"), (0.001, GREEN))
VERSION_COLUMN = column("Version", *coloured_words(VERSION_COLOURS))

LABEL_COLUMNS = {
    "cluster": "Cluster",
    "namespace": "Namespace",
    "source": "Source",
    "account_id": "Account",
    "aws_service": "Service",
    "event_name": "Event",
    "tls_version": "Version",
    "cipher_suite": "Cipher",
    "key_exchange": "Exchange",
    "post_quantum": "Post-quantum",
    "aws_region": "Region",
    "principal": "Principal",
    "user_agent": "Program",
    "source_ip": "Address",
    "worker_account": "Account",
    "worker_region": "Region",
    "family": "Family",
    "instance": "Instance",
    "version": "Version",
    "revision": "Revision",
}

# What is long has what these leave.
NARROW = {"Cluster": 90, "Namespace": 110, "Source": 150, "Account": 130, "Version": 90, "Calls": 100}
NARROW |= {"Series": 90, "Limit": 90, "Folded": 90}


def table(
    title,
    description,
    unit_name,
    values,
    labels,
    *,
    links,
    sort,
    size=(24, 8),
    overrides=(),
    descending=True,
    empty=None,
) -> dict:
    """One row for each set of `labels`; `values` are (column, expression). Sorted by the column `sort`.

    `empty` is what the panel says without any row.
    """
    made = _panel("table", title, description, unit_name, links, size)
    made["targets"] = _targets([(expr, "") for _, expr in values], instant=True, table=True)
    one = len(values) == 1
    names = {label: LABEL_COLUMNS[label] for label in labels}
    for number, (name, _) in enumerate(values):
        names["Value" if one else f"Value #{chr(ord('A') + number)}"] = name
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True, "job": True},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": names,
            },
        },
    ]
    made["fieldConfig"]["defaults"] |= {"custom": {"filterable": True, "align": "auto"}}
    widths = NARROW if size[0] == 24 else NARROW | {"Source": 110}
    narrow = [column(name, width(widths[name])) for name in names.values() if name in widths]
    made["fieldConfig"]["overrides"] = [TEXTS_AS_THEY_ARE, *narrow, *overrides]
    if empty:
        made["fieldConfig"]["defaults"]["noValue"] = empty
        made["fieldConfig"]["overrides"][:0] = EMPTY_CELLS
    made["options"] = {
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": sort, "desc": descending}],
        "footer": {"show": False, "reducer": ["sum"], "countRows": False, "enablePagination": True},
    }
    return made


# The whole


def row(title: str, *panels: dict) -> list[dict]:
    head = {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": 0},
    }
    return [head, *panels]


def _place(panels: list[dict]) -> None:
    """Left to right, in the order of reading; a line is as high as its highest panel."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        place = panel["gridPos"]
        if x + place["w"] > 24:
            x, y, height = 0, y + height, 0
        panel["id"] = number
        place["x"], place["y"] = x, y
        x, height = x + place["w"], max(height, place["h"])


def dashboard(
    name: str, description: str, variables: list[dict], rows: list[list[dict]], since: str = "now-24h"
) -> dict:
    panels = [panel for made in rows for panel in made]
    _place(panels)
    return {
        "uid": f"cloudtrail-tls-{name.lower()}",
        "title": f"CloudTrail TLS / {name}",
        "description": description,
        "tags": [TAG],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "1m",
        "time": {"from": since, "to": "now"},
        "links": [
            {
                "title": "CloudTrail TLS",
                "type": "dashboards",
                "tags": [TAG],
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": DATASOURCE,
                    "enable": True,
                    "iconColor": "red",
                    "expr": promql('ALERTS{alertname=~"CloudtrailTls.+", alertstate="firing", OF_NAMESPACE}'),
                }
            ]
        },
        "templating": {"list": variables},
        "panels": panels,
    }

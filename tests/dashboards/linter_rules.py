"""The 17 rules of Grafana's dashboard-linter (its README and `lint/rules.go` name them), each as a function of a
dashboard that yields what is wrong. Where a rule there lets something through for want of effort, the one here does not:
it looks at panels of every type, and at counters with matchers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from grafana_foundation_sdk.models import units

import promql
from boards import panels, put_in, queries, values, variables, without_matchers

Problems = Iterator[str]
RULES: dict[str, Callable[[dict], Problems]] = {}
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("__")}


def rule(name: str):
    def add(check: Callable[[dict], Problems]):
        RULES[name] = check
        return check

    return add


def query_variables(board: dict) -> list[dict]:
    return [variable for variable in variables(board).values() if variable["type"] == "query"]


def selectors(board: dict) -> Iterator[tuple[str, promql.Selected]]:
    for query in queries(board):
        try:
            expr = promql.parse(without_matchers(board, query.expr))
        except (ValueError, KeyError):
            continue  # target-promql-rule reports it
        for selected in promql.selected(expr):
            yield f"{query.title} {query.ref}", selected


@rule("template-datasource-rule")
def template_datasource(board: dict) -> Problems:
    sources = [variable for variable in variables(board).values() if variable["type"] == "datasource"]
    if not sources:
        yield "no variable of type datasource"
    for variable in sources:
        names = {f"{variable['query']}_datasource": f"{variable['query'].title()} data source"}
        if len(sources) == 1:
            names["datasource"] = "Data source"
        if names.get(variable["name"]) != variable["label"]:
            yield f"{variable['name']}, labelled {variable['label']}"


def required_variable(board: dict, name: str) -> Problems:
    variable = variables(board).get(name)
    if variable is None:
        yield f"no variable {name}"
        return
    expected = {
        "type": "query",
        "label": name.title(),
        "multi": True,
        "allValue": ".+",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
    }
    for key, value in expected.items():
        if variable.get(key) != value:
            yield f"{name}: {key} is {variable.get(key)}"


@rule("template-job-rule")
def template_job(board: dict) -> Problems:
    return required_variable(board, "job")


@rule("template-instance-rule")
def template_instance(board: dict) -> Problems:
    return required_variable(board, "instance")


@rule("template-label-promql-rule")
def template_label_promql(board: dict) -> Problems:
    for variable in query_variables(board):
        found = re.fullmatch(r"label_values\((.+), *\w+\)|query_result\((.+)\)", variable["query"])
        try:
            promql.parse(put_in(found[1] or found[2], values(board)))
        except (ValueError, KeyError, TypeError) as error:
            yield f"{variable['name']}: {error!r}"


@rule("template-on-time-change-reload-rule")
def template_reload(board: dict) -> Problems:
    for variable in query_variables(board):
        if variable.get("refresh") != 2:
            yield f"{variable['name']}: refresh is {variable.get('refresh')}"


@rule("panel-datasource-rule")
def panel_datasource(board: dict) -> Problems:
    for panel in panels(board):
        if panel.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
            yield panel["title"]


@rule("panel-title-description-rule")
def panel_title_description(board: dict) -> Problems:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']} {panel.get('title')}"


@rule("panel-units-rule")
def panel_units(board: dict) -> Problems:
    for panel in panels(board):
        config = panel["fieldConfig"]
        properties = [one for override in config["overrides"] for one in override["properties"]]
        given = [config["defaults"].get("unit"), *(one["value"] for one in properties if one["id"] == "unit")]
        for unit in given:
            if unit not in UNITS:
                yield f"{panel['title']}: {unit}"


@rule("panel-no-targets-rule")
def panel_no_targets(board: dict) -> Problems:
    for panel in panels(board):
        if not panel.get("targets"):
            yield panel["title"]


def targets_of_loki(board: dict) -> Problems:
    """There is no LogQL here, and so nothing that these two rules could find wrong in it."""
    for panel in panels(board):
        for target in panel.get("targets") or []:
            if target["datasource"]["type"] == "loki":
                yield f"{panel['title']} {target['refId']}"


RULES["target-logql-rule"] = targets_of_loki
RULES["target-logql-auto-rule"] = targets_of_loki


@rule("target-promql-rule")
def target_promql(board: dict) -> Problems:
    for query in queries(board):
        try:
            promql.parse(put_in(query.expr, values(board)))
        except (ValueError, KeyError) as error:
            yield f"{query.title} {query.ref}: {error!r}"


@rule("target-rate-interval-rule")
def target_rate_interval(board: dict) -> Problems:
    for query in queries(board):
        for interval in re.findall(r"\bi?rate\s*\([^()]*\[([^\]]+)\]", query.expr):
            if interval != "$__rate_interval":
                yield f"{query.title} {query.ref}: [{interval}]"
    for where, selected in selectors(board):
        if selected.ranged and selected.function is None:
            yield f"{where}: a range outside a function"


def required_matcher(board: dict, name: str) -> Problems:
    for where, selected in selectors(board):
        if (name, "=~", f"${name}") not in selected.matchers:
            yield f"{where}: {selected.name}"


@rule("target-job-rule")
def target_job(board: dict) -> Problems:
    return required_matcher(board, "job")


@rule("target-instance-rule")
def target_instance(board: dict) -> Problems:
    return required_matcher(board, "instance")


@rule("target-counter-agg-rule")
def target_counter_agg(board: dict) -> Problems:
    for where, selected in selectors(board):
        if selected.name.endswith("_total") and selected.function not in ("rate", "irate", "increase"):
            yield f"{where}: {selected.name}"


@rule("uneditable-dashboard")
def uneditable(board: dict) -> Problems:
    if board.get("editable") is not False:
        yield "editable"

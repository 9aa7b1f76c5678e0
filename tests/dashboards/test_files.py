"""The files: what Grafana's provisioning and sidecars take, what links lead to, and that they are what is generated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import yaml

import boards
import promql
import scrape

TYPES = {"stat", "gauge", "timeseries", "table"}  # none of Angular: graph, singlestat, table-old, …
LARGEST = 150_000  # bytes of one dashboard: a ConfigMap holds 262,144, and its copy in an annotation
OF_GRAFANA = {"__all", "__url_time_range", "__all_variables", "__data", "__field"}  # in values and links

# Each yields what is wrong with a dashboard.


def not_classic(board: dict) -> Iterator[str]:
    """File provisioning and sidecars take classic JSON alone, and put nothing in for `__inputs`."""
    for member in ("apiVersion", "kind", "spec", "elements", "__inputs", "__requires", "__elements", "id", "version"):
        if member in board:
            yield member
    if board.get("schemaVersion") != 39:
        yield f"schemaVersion {board.get('schemaVersion')}"
    if not str(board.get("uid", "")).startswith("cloudtrail-tls-") or len(board["uid"]) > 40:
        yield "uid"
    if not str(board.get("title", "")).startswith("CloudTrail TLS / "):
        yield "title"


def unknown_types(board: dict) -> Iterator[str]:
    for panel in boards.panels(board):
        if panel["type"] not in TYPES:
            yield panel["type"]


def stacked(board: dict) -> Iterator[str]:
    """A stack adds what it shows, and two sources are never added."""
    for panel in boards.panels(board):
        if panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode", "none") != "none":
            yield panel["title"]


def without_unit_description_or_link(board: dict) -> Iterator[str]:
    for panel in boards.panels(board):
        if not (panel["fieldConfig"]["defaults"].get("unit") and panel.get("description") and panel.get("links")):
            yield panel["title"]
        elif not panel["description"].endswith("."):
            yield f"{panel['title']}: a description is of sentences"


def misplaced(board: dict) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{panel['title']} is outside"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (other := taken.setdefault((x, y), panel["title"])) != panel["title"]:
                    yield f"{panel['title']} is on {other}"
    lines = Counter(y for _, y in taken)
    for y in [y for y in range(max(lines) + 1) if lines[y] != 24]:
        yield f"line {y} has a hole"
    numbers = Counter(panel["id"] for panel in board["panels"])
    titles = Counter(panel["title"] for panel in boards.panels(board))
    for repeated in [one for one, times in (numbers + titles).items() if times > 1]:
        yield f"{repeated} is there twice"


def unknown_variables(board: dict) -> Iterator[str]:
    known = boards.variables(board).keys() | boards.OWN_VARIABLES.keys() | OF_GRAFANA
    for text in boards.strings(board):
        for found in re.finditer(r"\$(\w+)|\$\{(\w+)", text):
            if (found[1] or found[2]) not in known:
                yield f"{found[0]} in {text}"


def unused_variables(board: dict) -> Iterator[str]:
    expressions = " ".join(query.expr for query in boards.queries(board))
    for name, variable in boards.variables(board).items():
        if variable["type"] != "datasource" and f"${name}" not in expressions:
            yield name


def links(board: dict) -> Iterator[tuple[dict, str]]:
    """Of panels, series and rows: (panel, url)."""
    for panel in boards.panels(board):
        config = panel["fieldConfig"]
        data = config["defaults"].get("links", [])
        for override in config["overrides"]:
            data = data + [link for one in override["properties"] if one["id"] == "links" for link in one["value"]]
        for link in panel["links"] + data:
            yield panel, link["url"]


def wrong_links(board: dict) -> Iterator[str]:
    by_uid = {other["uid"]: other for other in boards.load().values()}
    for panel, url in links(board):
        to = by_uid.get(urlsplit(url).path.removeprefix("/d/"))
        if to is None:
            yield f"{panel['title']}: {url} leads nowhere"
            continue
        for name, value in parse_qsl(urlsplit(url).query.replace("&${", "&_=${").replace("?${", "?_=${")):
            if name.startswith("var-") and name.removeprefix("var-") not in boards.variables(to):
                yield f"{panel['title']}: no variable for {name}"
            for label in re.findall(r"\$\{__field\.labels\.(\w+)", value):
                if not all("{{" + label + "}}" in target["legendFormat"] for target in panel["targets"]):
                    yield f"{panel['title']}: its series have no {label}"
            for column in re.findall(r"\$\{__data\.fields\.(\w+)", value):
                if column not in columns(panel):
                    yield f"{panel['title']}: it has no column {column}"


def columns(table: dict) -> list[str]:
    return list(table["transformations"][-1]["options"]["renameByName"].values()) if table["type"] == "table" else []


def wrong_columns(board: dict) -> Iterator[str]:
    """Columns that are named, sorted by or formatted are those that the queries give, and all of those are named."""
    known = scrape.families()
    for panel in boards.panels(board):
        if panel["type"] != "table":
            continue
        given, one = {"Time"}, len(panel["targets"]) == 1
        for target in panel["targets"]:
            expr = promql.parse(boards.without_matchers(board, target["expr"]))
            given |= promql.labels(expr, lambda name: scrape.labels_of(name, known))
            given.add("Value" if one else f"Value #{target['refId']}")
        organized = panel["transformations"][-1]["options"]
        named = set(organized["renameByName"]) | set(organized["excludeByName"])
        if named != given:
            yield f"{panel['title']}: {named ^ given}"
        if set(organized["indexByName"]) != set(organized["renameByName"]):
            yield f"{panel['title']}: order"
        matchers = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
        formatted = [matcher["options"] for matcher in matchers if matcher["id"] == "byName"]
        for column in [sort["displayName"] for sort in panel["options"]["sortBy"]] + formatted:
            if column not in columns(panel):
                yield f"{panel['title']}: no column {column}"


def texts_as_numbers(board: dict) -> Iterator[str]:
    """Grafana gives a table's unit to columns of digits, too: account 444455556666 is `444 Bil`."""
    texts = {"matcher": {"id": "byType", "options": "string"}, "properties": [{"id": "unit", "value": "string"}]}
    for panel in boards.panels(board):
        if panel["type"] == "table" and texts not in panel["fieldConfig"]["overrides"]:
            yield panel["title"]


def coloured_nothing(board: dict) -> Iterator[str]:
    """Where there is no data, Grafana takes the colour of the lowest step, and green would say that all is well."""
    for panel in boards.panels(board):
        if panel["type"] in ("stat", "gauge"):
            defaults = panel["fieldConfig"]["defaults"]
            results = [one["options"]["result"] for one in defaults["mappings"] if one["type"] == "special"]
            if [result["text"] for result in results] != [defaults["noValue"]] or results[0]["color"] == "green":
                yield panel["title"]


def green_zeros(board: dict) -> Iterator[str]:
    """Where nothing is found, the number is 0 for a blind source, too: it is green only where the panel says blind."""
    for panel in boards.panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "stat" and any(" or 0 * " in target["expr"] for target in panel["targets"]):
            said = [text for one in defaults["mappings"] if one["type"] == "value" for text in one["options"]]
            if defaults["thresholds"]["steps"][0]["color"] == "green" and "-1" not in said:
                yield panel["title"]


CHECKS = [
    not_classic,
    green_zeros,
    unknown_types,
    texts_as_numbers,
    coloured_nothing,
    stacked,
    without_unit_description_or_link,
    misplaced,
    unknown_variables,
    unused_variables,
    wrong_links,
    wrong_columns,
]


def panel_of(board: dict, kind: str, title: str = "") -> dict:
    return next(panel for panel in boards.panels(board) if panel["type"] == kind and title in panel["title"])


def organize(board: dict) -> dict:
    return panel_of(board, "table")["transformations"][-1]["options"]


def nothing_of(panel: dict) -> dict:
    return panel["fieldConfig"]["defaults"]["mappings"][-1]["options"]["result"]


def lowest_step(panel: dict) -> dict:
    return panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]


def series_link(board: dict) -> dict:
    return panel_of(board, "timeseries", "by service")["fieldConfig"]["defaults"]["links"][0]


# What each check has to report, made on the Overview.
WRONG = [
    (not_classic, lambda board: board.update(apiVersion="dashboard.grafana.app/v2")),
    (not_classic, lambda board: board.update(__inputs=[])),
    (not_classic, lambda board: board.update(schemaVersion=43)),
    (not_classic, lambda board: board.update(title="Overview")),
    (not_classic, lambda board: board.update(uid="overview")),
    (unknown_types, lambda board: panel_of(board, "stat").update(type="singlestat")),
    (texts_as_numbers, lambda board: panel_of(board, "table")["fieldConfig"]["overrides"].clear()),
    (green_zeros, lambda board: panel_of(board, "stat")["fieldConfig"]["defaults"]["mappings"].pop(0)),
    (green_zeros, lambda board: lowest_step(panel_of(board, "stat", "Accounts without")).update(color="green")),
    (coloured_nothing, lambda board: panel_of(board, "stat")["fieldConfig"]["defaults"]["mappings"].pop()),
    (coloured_nothing, lambda board: panel_of(board, "stat")["fieldConfig"]["defaults"].update(noValue="none")),
    (coloured_nothing, lambda board: nothing_of(panel_of(board, "gauge")).update(color="green")),
    (
        stacked,
        lambda board: panel_of(board, "timeseries")["fieldConfig"]["defaults"]["custom"].update(
            stacking={"mode": "normal"}
        ),
    ),
    (without_unit_description_or_link, lambda board: panel_of(board, "table").update(links=[])),
    (without_unit_description_or_link, lambda board: panel_of(board, "table").update(description="")),
    (without_unit_description_or_link, lambda board: panel_of(board, "table")["fieldConfig"]["defaults"].pop("unit")),
    (
        misplaced,
        lambda board: board["panels"].append(panel_of(board, "table") | {"id": 999, "title": "On the same place"}),
    ),
    (misplaced, lambda board: panel_of(board, "table").update(title=panel_of(board, "gauge")["title"])),
    (misplaced, lambda board: panel_of(board, "table")["gridPos"].update(x=1)),
    (misplaced, lambda board: panel_of(board, "table").update(id=1)),
    (misplaced, lambda board: panel_of(board, "gauge")["gridPos"].update(w=3)),
    (unknown_variables, lambda board: panel_of(board, "stat").update(title="$region")),
    (unknown_variables, lambda board: series_link(board).update(url="/d/cloudtrail-tls-service?${region:queryparam}")),
    (unused_variables, lambda board: board["templating"]["list"].append({"type": "custom", "name": "region"})),
    (wrong_links, lambda board: series_link(board).update(url="/d/cloudtrail-tls-services")),
    (
        wrong_links,
        lambda board: series_link(board).update(url="/d/cloudtrail-tls-service?${__url_time_range}&var-region=a"),
    ),
    (
        wrong_links,
        lambda board: series_link(board).update(url="/d/cloudtrail-tls-service?var-service=${__field.labels.service}"),
    ),
    (wrong_links, lambda board: organize(board)["renameByName"].update(aws_service="AWS service")),
    (wrong_columns, lambda board: organize(board)["renameByName"].update(aws_servise="Service")),
    (wrong_columns, lambda board: organize(board)["renameByName"].pop("Value #B")),
    (wrong_columns, lambda board: organize(board)["indexByName"].pop("Value #B")),
    (
        wrong_columns,
        lambda board: panel_of(board, "table")["options"].update(sortBy=[{"displayName": "Call", "desc": True}]),
    ),
]


class Files(unittest.TestCase):
    def test_every_dashboard_passes_every_check(self) -> None:
        for file, board in boards.load().items():
            for check in CHECKS:
                with self.subTest(file=file, check=check.__name__):
                    self.assertEqual(list(check(board)), [])

    def test_every_check_notices_what_is_wrong(self) -> None:
        self.assertEqual({check for check, _ in WRONG}, set(CHECKS))
        board = boards.load()["overview.json"]
        for number, (check, change) in enumerate(WRONG):
            with self.subTest(check=check.__name__, change=number):
                self.assertNotEqual(list(check(boards.changed(board, change))), [])

    def test_uids_and_titles_are_unique(self) -> None:
        """One that is there twice stops the provider from loading any."""
        for member in ("uid", "title"):
            self.assertEqual(len({board[member] for board in boards.load().values()}), len(boards.FILES))

    def test_a_config_map_holds_each(self) -> None:
        for path in boards.FILES:
            self.assertLess(path.stat().st_size, LARGEST, path.name)

    def test_files_are_what_is_generated(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(boards.GRAFANA / "generator", f"{folder}/generator")
            subprocess.run([sys.executable, f"{folder}/generator"], check=True)
            made = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).glob("*.json")}
        committed = {path.name: path.read_text(encoding="utf-8") for path in boards.FILES}
        self.assertEqual(made.keys(), committed.keys())
        for name, text in made.items():
            self.assertTrue(text == committed[name], f"{name} is old: run python3 grafana/generator")

    def test_every_query_is_listed(self) -> None:
        script = Path(boards.__file__)
        listed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
        found = [json.loads(line) for line in listed.splitlines()]
        targets = sum(text.count('"refId"') for text in (path.read_text() for path in boards.FILES))
        self.assertEqual(len(found), targets)
        self.assertEqual([one for one in found if "$" in one["expr"]], [])


class Provisioning(unittest.TestCase):
    def read(self, path: str) -> dict:
        found = yaml.safe_load((boards.GRAFANA / "provisioning" / path).read_text(encoding="utf-8"))
        self.assertEqual(found["apiVersion"], 1)
        return found

    def test_dashboards_come_from_files(self) -> None:
        (provider,) = self.read("dashboards/cloudtrail-tls.yaml")["providers"]
        self.assertEqual(provider["type"], "file")
        self.assertIs(provider["allowUiUpdates"], False)
        self.assertTrue(provider["options"]["path"].startswith("/"))

    def test_the_data_source_is_of_the_type_that_the_variable_offers(self) -> None:
        (source,) = self.read("datasources/prometheus.yaml")["datasources"]
        for board in boards.load().values():
            self.assertEqual(boards.variables(board)["datasource"]["query"], source["type"])


if __name__ == "__main__":
    unittest.main()

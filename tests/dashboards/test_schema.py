"""The dashboards against Grafana's own models: what they do not know is lost on the way through them, and reported."""

from __future__ import annotations

import json
import unittest
from collections.abc import Iterator

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import boards

register_default_plugins()


def lost(before: object, after: object, path: str = "") -> Iterator[str]:
    """Paths of what is in `before` and not, or otherwise, in `after`; what the models add with its default may be."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name in after:
                yield from lost(value, after[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield path


def round_trip(board: dict) -> list[str]:
    return list(lost(board, json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))))


def overrides_as_defaults(board: dict) -> dict:
    """The models take any override. As defaults of panels of their own, the same properties are checked."""
    made = {**board, "panels": []}
    for panel in boards.panels(board):
        for override in panel["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                *path, last = one["id"].split(".")
                defaults = inner = {}
                for name in path:
                    inner = inner.setdefault(name, {})
                inner[last] = one["value"]
                made["panels"].append({**panel, "fieldConfig": {"defaults": defaults, "overrides": []}})
    return made


def misspelt(board: dict) -> None:
    first = boards.panels(board)[0]
    board["schemaVersoin"] = board.pop("schemaVersion")
    first["options"]["colourMode"] = first["options"].pop("colorMode")
    first["targets"][0]["legendFromat"] = first["targets"][0].pop("legendFormat")
    board["templating"]["list"][1]["includeEverything"] = True
    first["fieldConfig"]["defaults"]["untis"] = "s"


class Schema(unittest.TestCase):
    def test_grafanas_models_know_every_property(self) -> None:
        for file, board in boards.load().items():
            with self.subTest(file=file):
                self.assertEqual(round_trip(board), [])
                properties = overrides_as_defaults(board)
                self.assertNotEqual(properties["panels"], [])
                self.assertEqual(round_trip(properties), [])

    def test_a_misspelt_override_is_lost(self) -> None:
        def change(board: dict) -> None:
            panel = next(one for one in boards.panels(board) if one["type"] == "timeseries")
            panel["fieldConfig"]["overrides"] = [
                {"matcher": {}, "properties": [{"id": "custom.lineStile", "value": {}}]}
            ]

        made = overrides_as_defaults(boards.changed(boards.load()["overview.json"], change))
        self.assertRegex(" ".join(round_trip(made)), r"^/panels\[\d+\]/fieldConfig/defaults/custom/lineStile$")

    def test_a_misspelt_property_is_lost(self) -> None:
        number = next(at for at, panel in enumerate(boards.load()["overview.json"]["panels"]) if panel["type"] != "row")
        self.assertEqual(
            sorted(round_trip(boards.changed(boards.load()["overview.json"], misspelt))),
            sorted(
                [
                    "/schemaVersoin",
                    f"/panels[{number}]/options/colourMode",
                    f"/panels[{number}]/targets[0]/legendFromat",
                    "/templating/list[1]/includeEverything",
                    f"/panels[{number}]/fieldConfig/defaults/untis",
                ]
            ),
        )


if __name__ == "__main__":
    unittest.main()

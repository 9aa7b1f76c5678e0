"""What grafana/render needs of the tests here, so that it does not break unseen: it is too heavy to run with them."""

from __future__ import annotations

import json
import re
import sys
import unittest

from grafana import boards
from stack import ROOT

sys.path.append(str(ROOT / "grafana" / "render"))

import chapters
from test_queries import WITHOUT_DATA


def no_data(board: str, chapter: str) -> list[dict]:
    """What is found where every panel without data is one that is to have none."""
    titles = [title for (file, title), (when, _) in WITHOUT_DATA.items() if file == board and chapter in when]
    return [{"kind": "no data", "where": title, "detail": ""} for title in titles]


class Render(unittest.TestCase):
    def panel(self, title: str) -> dict:
        board = chapters.quicker(boards.load()["overview.json"])
        return next(panel for panel in board["panels"] if panel["title"] == title)

    def test_a_day_is_a_minute(self) -> None:
        self.assertEqual(self.panel("Calls per second, by TLS version")["targets"][0]["interval"], "2500ms")
        self.assertIn(" > 10) ", self.panel("Outdated calls")["targets"][0]["expr"])
        steps = self.panel("Data overdue")["fieldConfig"]["defaults"]["thresholds"]["steps"]
        self.assertEqual([step["value"] for step in steps], [None, 10, 10])
        steps = self.panel("TLS 1.3")["fieldConfig"]["defaults"]["thresholds"]["steps"]
        self.assertEqual([step["value"] for step in steps], [None, 0.5, 0.95])

    def test_what_is_to_be_empty_is_not_amiss(self) -> None:
        found = no_data("overview.json", "clean")
        self.assertGreater(len(found), 5)
        self.assertEqual(chapters.lacks("overview.json", "clean", found), [])

    def test_all_else_is_amiss(self) -> None:
        found = no_data("overview.json", "clean")
        other = {"kind": "no data", "where": "Shares", "detail": "query A"}
        self.assertEqual(chapters.lacks("overview.json", "clean", [*found, other]), ["Shares: no data query A"])
        [line] = chapters.lacks("overview.json", "clean", found[1:])
        self.assertEqual(line, f"{found[0]['where']}: data that was not expected")
        self.assertEqual(len(chapters.lacks("overview.json", "legacy", found)), len(found))

    def test_labels_that_nothing_has_are_amiss_unless_said(self) -> None:
        missing = [
            {"kind": "legend label without a series", "where": "Backlog", "detail": label}
            for label in ("worker_region", "worker_regoin")
        ]
        found = [*no_data("exporter.json", "clean"), *missing]
        lines = ["Backlog: legend label without a series worker_regoin"]
        self.assertEqual(chapters.lacks("exporter.json", "clean", found), lines)

    def test_packages_are_pinned_and_no_registry_is_named(self) -> None:
        folder = ROOT / "grafana" / "render"
        wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
        self.assertTrue(all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values()), wanted)
        self.assertNotIn("://", (folder / "package-lock.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()

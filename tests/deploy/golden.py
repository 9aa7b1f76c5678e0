"""Renders that are kept: `UPDATE_GOLDEN=1 tests/run deploy` rewrites them, a person reads the difference."""

import copy
import os
import unittest
from pathlib import Path

import yaml

GOLDEN = Path(__file__).resolve().parent / "golden"


class Dumper(yaml.CSafeDumper):
    """Texts of several lines as such."""


def text_node(dumper: yaml.Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, text_node)


def shown(manifests: list[dict]) -> str:
    """As YAML, without the rules' and dashboards' own text, which has tests and one source of its own."""
    documents = copy.deepcopy(manifests)
    for one in documents:
        if one["kind"] == "PrometheusRule":
            one["spec"] = {"groups": [group["name"] for group in one["spec"]["groups"]]}
        if one["kind"] == "ConfigMap":
            one["data"] = {key: "…" if key.endswith(".json") else text for key, text in one.get("data", {}).items()}
    return yaml.dump_all(documents, Dumper=Dumper, allow_unicode=True, width=120)


def compare(test: unittest.TestCase, name: str, manifests: list[dict]) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = shown(manifests)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    test.assertEqual(text, path.read_text(encoding="utf-8"), f"not {path.name}: UPDATE_GOLDEN=1 rewrites it")

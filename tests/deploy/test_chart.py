"""The Helm chart: good values render as kept, bad ones are refused with their reason, each alert can be tuned."""

import json
import os
import re
import shutil
import tempfile
import textwrap
import tomllib
import unittest
from pathlib import Path

import manifests
import yaml
from kubetools import CHART, HERE, ROOT, Refused, run, template
from renders import Renders

VALUES = HERE / "values"
PROBLEMS = VALUES / "problems.txt"
LEAST = VALUES / "good" / "least.yaml"
# What the user of these values has made beforehand.
OWN = {
    "existing": {"ConfigMap/my-config", "ServiceAccount/my-account", "PersistentVolumeClaim/my-claim"},
    "ephemeral": {"Secret/my-config"},
    "web_config": {"Secret/cloudtrail-tls-exporter-web"},
}


def alerts(groups: list[dict]) -> dict[str, dict]:
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def shipped() -> list[dict]:
    """The groups of deploy/alerts."""
    files = sorted((ROOT / "deploy" / "alerts").glob("*.yaml"))
    return [group for path in files for group in yaml.load(path.read_text(), yaml.CSafeLoader)["groups"]]


def with_rules(rules: dict) -> list[dict]:
    """The groups of the chart's PrometheusRule with these values of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"prometheusRule": {"enabled": True, **rules}}, file)
        rendered = template("--values", LEAST, "--values", file.name)
    return manifests.find(rendered, "PrometheusRule")["spec"]["groups"]


class GoodValues(Renders, unittest.TestCase):
    """Each file of values/good."""

    folder, own = "chart", OWN

    @classmethod
    def setUpClass(cls) -> None:
        cls.rendered = {path.stem: template("--values", path) for path in sorted((VALUES / "good").glob("*.yaml"))}

    def test_name_what_the_program_has(self) -> None:
        for name, rendered in self.rendered.items():
            container = manifests.exporter(manifests.pod(rendered))
            with self.subTest(name):
                self.assertEqual(manifests.unknown_flags(" ".join(container["args"])), set())
                for one in rendered:
                    if "config.toml" in one.get("data", {}):
                        found = manifests.config_problems(one["data"]["config.toml"], manifests.environment(container))
                        self.assertEqual(found, "")

    def test_are_linted(self) -> None:
        for name in self.rendered:
            with self.subTest(name):
                run("helm", "lint", "--strict", CHART, "--values", VALUES / "good" / f"{name}.yaml")

    def test_use_every_value(self) -> None:
        """Together they set every key of values.yaml, so that the kept renders show what each does."""
        told = [yaml.safe_load(path.read_text()) for path in (VALUES / "good").glob("*.yaml")]
        keys = {key for values in told for key in leaves(values)}
        defaults = leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
        unset = {key for key in defaults if not any(one == key or one.startswith(f"{key}.") for one in keys)}
        # The two monitors are one text; a pod of other rights than these is not kept.
        self.assertEqual({key.split(".")[0] for key in unset}, {"podMonitor", "podSecurityContext", "securityContext"})


def leaves(values: dict, path: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        found += leaves(value, here) if isinstance(value, dict) and value else [here]
    return found


class BadValues(unittest.TestCase):
    def test_are_refused_with_their_reason(self) -> None:
        """Each file of values/bad, and what Helm says of it in problems.txt."""
        told = ""
        for path in sorted((VALUES / "bad").glob("*.yaml")):
            with self.subTest(path.stem), self.assertRaises(Refused) as refused:
                template("--values", path)
            told += f"== {path.stem}\n{refused.exception}\n"
        if os.environ.get("UPDATE_GOLDEN"):
            PROBLEMS.write_text(told, encoding="utf-8")
        self.assertEqual(told, PROBLEMS.read_text(encoding="utf-8"))


class Rules(unittest.TestCase):
    def test_are_those_of_the_rule_files(self) -> None:
        """Templates of alerts, `{{ $labels.job }}`, survive Helm's own."""
        self.assertEqual(with_rules({}), shipped())

    def test_change_one_alert_and_no_other(self) -> None:
        name = "CloudtrailTlsDataStale"
        before = alerts(shipped())
        cases = {
            "expr": ({"expr": "vector(1) > {{ 0 }}"}, {"expr": "vector(1) > {{ 0 }}"}),
            "for": ({"for": "2h"}, {"for": "2h"}),
            "severity": ({"severity": "info"}, {"labels": {"severity": "info"}}),
            "another severity": ({"severity": "warning"}, {"labels": {"severity": "warning"}}),
            "labels": ({"labels": {"team": "a"}}, {"labels": {**before[name]["labels"], "team": "a"}}),
        }
        for key, (values, changed) in cases.items():
            with self.subTest(key):
                after = alerts(with_rules({"alerts": {name: values}}))
                self.assertEqual(after, {**before, name: {**before[name], **changed}})

    def test_leave_out_each_alert(self) -> None:
        """One by one would take a minute: every second one, then the others."""
        before = alerts(shipped())
        for left in (list(before)[::2], list(before)[1::2]):
            after = with_rules({"alerts": {name: {"enabled": False} for name in left}})
            self.assertEqual(alerts(after), {name: rule for name, rule in before.items() if name not in left})
            records = [rule for group in after for rule in group["rules"] if "record" in rule]
            self.assertEqual(records, [r for group in shipped() for r in group["rules"] if "record" in r])

    def test_have_labels_and_groups_of_the_user(self) -> None:
        mine = {"name": "mine", "rules": [{"alert": "Mine", "expr": "vector(1)", "annotations": {"a": "{{ $value }}"}}]}
        groups = with_rules({"ruleLabels": {"team": "a"}, "extraGroups": [mine]})
        self.assertEqual(groups[-1], mine)
        for rule in alerts(groups[:-1]).values():
            self.assertEqual(rule["labels"]["team"], "a")
            self.assertIn("severity", rule["labels"])


class Files(unittest.TestCase):
    def test_hold_the_dashboards_as_they_are(self) -> None:
        rendered = template("--values", LEAST, "--set", "dashboards.enabled=true")
        held = {name: text for one in rendered for name, text in one.get("data", {}).items() if name != "config.toml"}
        files = sorted((ROOT / "grafana").glob("*.json"))
        self.assertEqual(held, {f"cloudtrail-tls-{path.name}": path.read_text() for path in files})

    def test_are_no_more_than_rules_and_dashboards(self) -> None:
        """A package follows the links, and takes nothing else that lies there."""
        with tempfile.TemporaryDirectory() as name:
            run("helm", "package", CHART, "--destination", name)
            (package,) = Path(name).glob("*.tgz")
            shutil.unpack_archive(package, name)
            unpacked = Path(name) / CHART.name
            packed = {str(path.relative_to(unpacked)) for path in (unpacked / "files").rglob("*") if path.is_file()}
            alerts_too = {f"files/alerts/{path.name}" for path in (ROOT / "deploy" / "alerts").glob("*.yaml")}
            boards = {f"files/dashboards/{path.name}" for path in (ROOT / "grafana").glob("*.json")}
            self.assertEqual(packed, alerts_too | boards)
            everything = ["--values", VALUES / "good" / "all.yaml"]
            self.assertEqual(template(*everything, chart=unpacked), template(*everything))

    def test_that_are_missing_are_told(self) -> None:
        """Where links were not followed, as some tools copy a repository."""
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / CHART.name
            shutil.copytree(CHART, copy, symlinks=True, ignore=shutil.ignore_patterns("files"))
            for key in ("prometheusRule", "dashboards"):
                told = f"{key}.enabled: this copy of the chart has no"
                with self.subTest(key), self.assertRaisesRegex(Refused, told):
                    template("--values", LEAST, "--set", f"{key}.enabled=true", chart=copy)


class TheChart(unittest.TestCase):
    def test_has_the_version_of_the_program(self) -> None:
        package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], package["version"])

    def test_offers_a_monitor_that_gets_in(self) -> None:
        """The comment of values.yaml is what values/good/web_config.yaml has, by which the pod's test scrapes."""
        text = (CHART / "values.yaml").read_text()
        (offered,) = re.findall(r"^(  #   scheme: https\n(?:  #   .*\n)+)", text, re.MULTILINE)
        used = yaml.safe_load((VALUES / "good" / "web_config.yaml").read_text())["serviceMonitor"]
        shown = yaml.safe_load(textwrap.dedent(offered.replace("  #", "")))
        self.assertEqual({"enabled": True, **shown}, used)

    def test_has_a_schema_of_exactly_its_values(self) -> None:
        """Keys of values.yaml and of the schema, but for what only users name."""
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        self.assertEqual(known(schema, schema), known_of(values, schema, schema))

    def test_replaces_the_pod_when_the_configuration_changes(self) -> None:
        def checksum(*options: str) -> dict:
            rendered = template("--values", LEAST, *options)
            return manifests.find(rendered, "Deployment")["spec"]["template"]["metadata"]["annotations"]

        self.assertEqual(checksum(), checksum("--set", "service.port=1"))
        self.assertNotEqual(checksum(), checksum("--set", "config=x"))


def resolved(schema: dict, root: dict) -> dict:
    return root["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def known(schema: dict, root: dict, path: str = "") -> set[str]:
    """Every key that the schema names."""
    found = set()
    for key, value in resolved(schema, root).get("properties", {}).items():
        found |= {f"{path}.{key}"} | known(value, root, f"{path}.{key}")
    return {one for one in found if not one.startswith(OPEN) and one != ".global"}


def known_of(values: dict, schema: dict, root: dict, path: str = "") -> set[str]:
    """Every key of the values, as deep as the schema names keys."""
    found, properties = set(), resolved(schema, root).get("properties", {})
    for key, value in values.items():
        found.add(f"{path}.{key}")
        if isinstance(value, dict) and "properties" in resolved(properties.get(key, {}), root):
            found |= known_of(value, properties[key], root, f"{path}.{key}")
    return {one for one in found if not one.startswith(OPEN)}


# Probes hold what users set.
OPEN = (".startupProbe.", ".livenessProbe.", ".readinessProbe.")


if __name__ == "__main__":
    unittest.main()

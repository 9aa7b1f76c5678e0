"""The rules as shipped, their tests, and promtool."""

import pathlib
import re
import subprocess
import tempfile

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts"
RULE_FILES = sorted(ALERTS.glob("*.yaml"))
TEST_FILES = sorted((ALERTS / "tests").glob("*.yaml"))


def load(file: pathlib.Path) -> dict:
    return yaml.safe_load(file.read_text())


def rules() -> list[dict]:
    """Every rule of every file, in their order."""
    return [rule for file in RULE_FILES for group in load(file)["groups"] for rule in group["rules"]]


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def name(rule: dict) -> str:
    return rule.get("alert") or rule["record"]


def queries(rule: dict) -> list[str]:
    """The queries in an alert's annotations, with any label values."""
    texts = rule.get("annotations", {}).values()
    formats = [text for each in texts for text in re.findall(r'printf ("(?:[^"\\]|\\.)*")', each)]
    texts = [yaml.safe_load(text).replace("%q", '"x"') for text in formats]
    return [text for text in texts if not text.startswith("%")]


def nodes(expression: str) -> list[promql_parser.Expr]:
    """Every part of an expression."""
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), lambda node: found.append(node))
    return found


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    found = []
    for node in nodes(expression):
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector) and node not in found:
            found.append(node)
    return found


def promtool(*arguments: str | pathlib.Path) -> tuple[int, str]:
    """Runs promtool; its exit code and all that it printed."""
    run = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return run.returncode, run.stdout + run.stderr


def run_tests(rule_file: dict, test_files: list[dict]) -> tuple[bool, str]:
    """Runs promtool's tests over other rules than the shipped ones."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        (pathlib.Path(folder) / "rules.yaml").write_text(yaml.safe_dump(rule_file))
        for number, tests in enumerate(test_files):
            paths.append(pathlib.Path(folder) / f"{number}.test.yaml")
            paths[-1].write_text(yaml.safe_dump({**tests, "rule_files": ["rules.yaml"]}))
        code, output = promtool("test", "rules", *paths)
    return code == 0, output

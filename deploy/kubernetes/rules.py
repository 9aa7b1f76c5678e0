"""Writes components/rules: each file of deploy/alerts as a PrometheusRule. `python3 deploy/kubernetes/rules.py`."""

import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALERTS = HERE.parent / "alerts"
RULES = HERE / "components" / "rules"
COMMAND = "python3 deploy/kubernetes/rules.py"

RULE = """\
# Written by `{command}` from deploy/alerts/{file}: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: cloudtrail-tls-exporter
spec:
{text}"""

KUSTOMIZATION = """\
# Written by `{command}`. kube-prometheus-stack selects by the label `release`: add it in an overlay.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
{resources}"""


def texts() -> dict[str, str]:
    """File names in `RULES`, and what they hold."""
    written = {}
    for path in sorted(ALERTS.glob("*.yaml")):
        text = textwrap.indent(path.read_text(encoding="utf-8"), "  ")
        written[path.name] = RULE.format(command=COMMAND, file=path.name, name=path.stem, text=text)
    resources = "".join(f"  - {name}\n" for name in written)
    written["kustomization.yaml"] = KUSTOMIZATION.format(command=COMMAND, resources=resources)
    return written


if __name__ == "__main__":
    RULES.mkdir(exist_ok=True)
    for name, text in texts().items():
        (RULES / name).write_text(text, encoding="utf-8")

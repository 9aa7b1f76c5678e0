"""The checks of manifests find what they look for; and what deploy files and README say exists and works."""

import copy
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import kubetools
import manifests
from kubetools import CHART, HERE, KUBERNETES, ROOT

# Of a pod and its container.
Change = Callable[[dict, dict], object]


class TheChecks(unittest.TestCase):
    """Each change of the service overlay is a problem, and without it there is none."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.rendered = kubetools.kustomize(KUBERNETES / "overlays" / "service")

    def changed(self, kind: str, change: Callable[[dict], object]) -> list[str]:
        rendered = [copy.deepcopy(one) for one in self.rendered if one["kind"] not in ("ConfigMap", "PrometheusRule")]
        change(manifests.find(rendered, kind))
        return manifests.problems(rendered)

    def test_find_nothing_where_nothing_is_changed(self) -> None:
        self.assertEqual(self.changed("Deployment", lambda _: None), [])

    def test_find_what_a_restricted_pod_may_not(self) -> None:
        changes: dict[str, Change] = {
            "allowPrivilegeEscalation": lambda _, c: c["securityContext"].pop("allowPrivilegeEscalation"),
            "capabilities.drop": lambda _, c: c["securityContext"].pop("capabilities"),
            "capabilities.add": lambda _, c: c["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
            "privileged": lambda _, c: c["securityContext"].update(privileged=True),
            "procMount": lambda _, c: c["securityContext"].update(procMount="Unmasked"),
            "runAsNonRoot": lambda p, _: p["securityContext"].pop("runAsNonRoot"),
            "runAsUser": lambda _, c: c["securityContext"].update(runAsUser=0),
            "seccompProfile": lambda p, _: p["securityContext"].pop("seccompProfile"),
            "readOnlyRootFilesystem": lambda _, c: c["securityContext"].update(readOnlyRootFilesystem=False),
            "hostPort": lambda _, c: c["ports"][0].update(hostPort=10013),
            "hostNetwork": lambda p, _: p.update(hostNetwork=True),
            "hostPID": lambda p, _: p.update(hostPID=True),
            "hostIPC": lambda p, _: p.update(hostIPC=True),
            "hostPath": lambda p, _: p["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
            # A container that begins before the others counts too.
            "container first": lambda p, _: p.update(initContainers=[{"name": "first", "image": "i"}]),
        }
        for what, change in changes.items():
            with self.subTest(what):
                spec = copy.deepcopy(manifests.pod(self.rendered))
                self.assertEqual(manifests.restricted_problems(spec), [])
                change(spec, spec["containers"][0])
                found = manifests.restricted_problems(spec)
                self.assertTrue(found and all(what in problem for problem in found), found)

    def test_find_what_kubernetes_does_not_know(self) -> None:
        found = self.changed("Deployment", lambda one: one["spec"].update(replicaz=1))
        self.assertEqual(len(found), len(manifests.VERSIONS), found)
        found = self.changed("Deployment", lambda one: one["spec"].update(replicas="one"))
        self.assertEqual(len(found), len(manifests.VERSIONS), found)
        found = self.changed("ServiceAccount", lambda one: one.update(kind="ServiceAcount"))
        self.assertEqual(len(found), len(manifests.VERSIONS), found)

    def test_find_what_the_operator_does_not_know(self) -> None:
        changes: list[Callable[[dict], object]] = [
            lambda endpoint: endpoint.update(intervall="1m"),
            lambda endpoint: endpoint.update(interval="1 minute"),
            lambda endpoint: endpoint.update(relabelings=[{"targetLabl": "cluster"}]),
            lambda endpoint: endpoint.update(scheme="gopher"),
        ]
        for change in changes:
            found = self.changed("ServiceMonitor", lambda one, change=change: change(one["spec"]["endpoints"][0]))
            self.assertEqual(len(found), 1, found)

    def test_find_names_that_do_not_meet(self) -> None:
        changes: dict[str, tuple[str, Callable[[dict], object]]] = {
            "Service selects no pod": ("Service", lambda one: one["spec"].update(selector={"a": "b"})),
            "Service: port other": ("Service", lambda one: one["spec"]["ports"][0].update(targetPort="other")),
            "ServiceMonitor: other": ("ServiceMonitor", lambda one: one["spec"]["endpoints"][0].update(port="other")),
            "ServiceMonitor: metrics": ("Service", lambda one: one["metadata"].update(labels={})),
            "mount state": ("Deployment", lambda one: one["spec"]["template"]["spec"]["volumes"].pop()),
            "Deployment selects no pod": ("Deployment", lambda one: one["spec"]["selector"].update(matchLabels={})),
        }
        for what, (kind, change) in changes.items():
            with self.subTest(what):
                self.assertIn(f"link: {what}", self.changed(kind, change))

    def test_find_a_store_that_the_program_can_not_write(self) -> None:
        changes: list[Callable[[dict], object]] = [
            lambda context: context.pop("fsGroup"),
            lambda context: context.update(fsGroup=1),
            lambda context: context.pop("runAsGroup"),
            lambda context: context.update(runAsGroup=1),
        ]
        for change in changes:
            found = self.changed("Deployment", lambda one, do=change: do(manifests.pod([one])["securityContext"]))
            self.assertEqual(found, ["link: claim of state: fsGroup is not runAsGroup"])

    def test_find_a_network_policy_beside_the_pod(self) -> None:
        values = HERE / "values" / "good" / "web_config.yaml"
        rendered = kubetools.template("--values", values)
        self.assertEqual(manifests.link_problems(rendered), [])
        spec = manifests.find(rendered, "NetworkPolicy")["spec"]
        (rule,) = spec["ingress"]
        self.assertEqual([port["port"] for port in rule["ports"]], ["metrics", "probe"])
        rule["ports"][0]["port"] = "metric"
        rule["ports"].pop()
        spec["podSelector"]["matchLabels"] = {"a": "b"}
        told = [" selects no pod", ": metric", " without port metrics", " without port probe"]
        self.assertEqual(manifests.link_problems(rendered), [f"NetworkPolicy{one}" for one in told])

    def test_find_a_map_that_kubectl_refuses(self) -> None:
        self.assertEqual(len(manifests.size_problems({"data": {"a": "x" * manifests.LARGEST}})), 1)

    def test_find_what_the_program_does_not_have(self) -> None:
        self.assertEqual(manifests.unknown_flags("--config.file=x --web.listen-adress"), {"--web.listen-adress"})
        self.assertIn("nonsense", manifests.config_problems("nonsense = 1", {}))
        good = (KUBERNETES / "base" / "config.toml").read_text()
        self.assertEqual(manifests.config_problems(good, {}), "")
        self.assertNotEqual(manifests.config_problems(good, {"CLOUDTRAIL_TLS__STATE__EPHEMERA": "true"}), "")


class DeployFiles(unittest.TestCase):
    def test_name_flags_that_exist(self) -> None:
        """In comments and notes too."""
        for folder in (KUBERNETES, CHART):
            for path in folder.rglob("*"):
                if path.is_file() and not {"files", "__pycache__"} & set(path.relative_to(folder).parts):
                    with self.subTest(path.relative_to(ROOT)):
                        self.assertEqual(manifests.unknown_flags(path.read_text()), set())

    def test_name_metrics_and_alerts_that_exist(self) -> None:
        scrape = (ROOT / "tests" / "golden" / "metrics.prom").read_text()
        rules = "".join(path.read_text() for path in (ROOT / "deploy" / "alerts").glob("*.yaml"))
        there = set(re.findall(r"^# TYPE (\w+)", scrape, re.MULTILINE)) | set(re.findall(r"alert: (\w+)", rules))
        notes = (CHART / "templates" / "NOTES.txt").read_text()
        named = set(re.findall(r"cloudtrail_tls_\w+|CloudtrailTls\w+", notes + (CHART / "values.yaml").read_text()))
        self.assertEqual(len(named), 4)
        self.assertEqual(named - there, set())

    def test_have_a_configuration_that_holds(self) -> None:
        """The base's own too, which no overlay renders."""
        paths = list(KUBERNETES.rglob("config.toml"))
        self.assertEqual(len(paths), 3)
        for path in paths:
            with self.subTest(path.relative_to(ROOT)):
                self.assertEqual(manifests.config_problems(path.read_text(), {}), "")


    def test_give_a_start_as_long_as_systemd_does(self) -> None:
        unit = (ROOT / "deploy" / "systemd" / "cloudtrail-tls-exporter.service").read_text()
        (minutes,) = re.findall(r"^TimeoutStartSec=(\d+)min$", unit, re.MULTILINE)
        pods = {
            "kustomize": kubetools.kustomize(KUBERNETES / "overlays" / "service"),
            "chart": kubetools.template("--values", HERE / "values" / "good" / "least.yaml"),
        }
        for name, rendered in pods.items():
            with self.subTest(name):
                probe = manifests.exporter(manifests.pod(rendered))["startupProbe"]
                self.assertEqual(probe["periodSeconds"] * probe["failureThreshold"], int(minutes) * 60)


class Readme(unittest.TestCase):
    def test_leads_to_manifests_in_two_commands(self) -> None:
        """The commands of its section on Kubernetes, as they stand there, in a copy of what a user has."""
        readme = (ROOT / "README.md").read_text()
        (section,) = re.findall(r"^## On Kubernetes\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
        blocks = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        self.assertEqual(len(blocks), 2, "one for Kustomize, one for Helm")
        for block, tool in zip(blocks, ("kubectl", "helm"), strict=True):
            with self.subTest(tool), tempfile.TemporaryDirectory() as name:
                for folder in ("deploy", "grafana"):
                    ignore = shutil.ignore_patterns("render")
                    shutil.copytree(ROOT / folder, Path(name) / folder, symlinks=True, ignore=ignore)
                commands = block.replace("\\\n", "").splitlines()
                self.assertLessEqual(len(commands), 2)
                self.assertEqual(shlex.split(commands[-1])[0], tool)
                path = f"{kubetools.folder()}:/usr/bin:/bin"
                script = ["bash", "-euo", "pipefail", "-c", block]
                environment = {"HOME": name, "PATH": path}
                ended = subprocess.run(script, cwd=name, env=environment, capture_output=True, text=True, check=False)
                self.assertEqual(ended.returncode, 0, ended.stderr)
                (file,) = re.findall(r"> (\S+)$", commands[-1])
                rendered = kubetools.parsed((Path(name) / file).read_text())
                self.assertEqual(manifests.problems(rendered), [])
                self.assertEqual(manifests.absent(rendered), set())
                kinds = {one["kind"] for one in rendered}
                self.assertLessEqual({"Deployment", "ServiceMonitor", "PrometheusRule"}, kinds)


if __name__ == "__main__":
    unittest.main()

"""The Kustomize tree: every overlay, with what its comments offer, and where rules and dashboards come from."""

import importlib.util
import re
import shutil
import tempfile
import unittest
from pathlib import Path

import manifests
import yaml
from kubetools import KUBERNETES, ROOT, Refused, kustomize
from renders import Renders

SERVICE = KUBERNETES / "overlays" / "service"
SIDECAR = KUBERNETES / "overlays" / "sidecar"
# What the user has made beforehand.
WEB = {"Secret/cloudtrail-tls-exporter-web"}
OWN = {"web-config": WEB, "patches": WEB}
# What comments of the service overlay offer; all patches at once need the component that one of them is for.
VARIANTS = {"ephemeral": ["ephemeral"], "web-config": ["web-config"], "patches": ["web-config", "patches"]}


def variant(name: str) -> list[dict]:
    """The service overlay in a copy of the tree, with commented components or the commented patches in force."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(KUBERNETES, copy / "deploy" / "kubernetes")
        shutil.copytree(ROOT / "grafana", copy / "grafana", ignore=shutil.ignore_patterns("render"))
        overlay = copy / SERVICE.relative_to(ROOT)
        path = overlay / "kustomization.yaml"
        for change in VARIANTS[name]:
            before = path.read_text()
            if change == "patches":
                head, _, patches = before.partition("# patches:\n")
                after = head + re.sub(r"^# ?", "", "# patches:\n" + patches, flags=re.MULTILINE)
            else:
                after = before.replace(f"# - ../../components/{change}\n", f"- ../../components/{change}\n")
            assert after != before, f"no comment offers {change}"
            path.write_text(after)
        return kustomize(overlay)


class Overlays(Renders, unittest.TestCase):
    """Each folder of overlays, and the service one with each thing that its comments offer."""

    folder, own = "kustomize", OWN

    @classmethod
    def setUpClass(cls) -> None:
        cls.rendered = {path.name: kustomize(path) for path in sorted((KUBERNETES / "overlays").iterdir())}
        cls.rendered |= {name: variant(name) for name in VARIANTS}

    def test_name_what_the_program_has(self) -> None:
        for name, rendered in self.rendered.items():
            container = manifests.exporter(manifests.pod(rendered))
            (config,) = [one["data"]["config.toml"] for one in rendered if "config.toml" in one.get("data", {})]
            with self.subTest(name):
                self.assertEqual(manifests.unknown_flags(" ".join(container["args"])), set())
                self.assertEqual(manifests.config_problems(config, manifests.environment(container)), "")

    def test_run_one_exporter(self) -> None:
        for name, rendered in self.rendered.items():
            with self.subTest(name):
                spec = manifests.find(rendered, "Deployment")["spec"]
                self.assertEqual((spec["replicas"], spec["strategy"]["type"]), (1, "Recreate"))

    def test_have_the_image_where_it_is_said(self) -> None:
        for name, rendered in self.rendered.items():
            with self.subTest(name):
                image = manifests.exporter(manifests.pod(rendered))["image"]
                self.assertRegex(image, r"^registry\.example\.com/cloudtrail-tls-exporter:\d")

    def test_use_every_component(self) -> None:
        """What no overlay names would not be tested."""
        files = (KUBERNETES / "overlays").rglob("kustomization.yaml")
        named = {name for path in files for name in re.findall(r"components/([\w-]+)", path.read_text())}
        self.assertEqual(named, {path.name for path in (KUBERNETES / "components").iterdir()})


class Sidecar(unittest.TestCase):
    """In copies beside the overlay, as a user makes them."""

    def setUp(self) -> None:
        copy = Path(self.enterContext(tempfile.TemporaryDirectory())) / "kubernetes"
        shutil.copytree(KUBERNETES, copy)
        self.overlay = copy / "overlays" / "mine"
        shutil.copytree(SIDECAR, self.overlay)
        self.workload = self.overlay / "workload.yaml"

    def change(self, before: str, after: str) -> None:
        text = self.workload.read_text()
        self.assertIn(before, text)
        self.workload.write_text(text.replace(before, after))

    def test_has_no_probe_by_which_it_takes_the_workload_out_of_its_service(self) -> None:
        """That its liveness outlasts an outage of AWS, the running pod shows."""
        (container,) = manifests.pod(kustomize(self.overlay))["initContainers"]
        self.assertEqual(container["restartPolicy"], "Always")
        self.assertEqual({key for key in container if key.endswith("Probe")}, {"livenessProbe"})

    def test_has_the_configuration_of_its_overlay(self) -> None:
        config = self.overlay / "config.toml"
        config.write_text(config.read_text().replace("us-east-1", "eu-central-1"))
        rendered = kustomize(self.overlay)
        held = manifests.find(rendered, "ConfigMap")
        self.assertEqual(held["data"], {"config.toml": config.read_text()})
        self.assertEqual(manifests.absent(rendered), set())
        before = manifests.find(kustomize(SIDECAR), "ConfigMap")
        self.assertNotEqual(held["metadata"]["name"], before["metadata"]["name"])

    def test_is_refused_where_there_would_be_several(self) -> None:
        for replicas in ("replicas: 3", "# not said"):
            with self.subTest(replicas):
                self.workload.write_text((SIDECAR / "workload.yaml").read_text())
                self.change("replicas: 1", replicas)
                with self.assertRaisesRegex(Refused, "/spec/replicas"):
                    kustomize(self.overlay)

    def test_is_beside_the_one_workload_that_has_the_label(self) -> None:
        """A second Deployment, a StatefulSet and a DaemonSet without it are left as they are."""
        one = yaml.safe_load(self.workload.read_text())
        del one["metadata"]["labels"]
        others = [one | {"metadata": {"name": "second"}}, one | {"kind": "StatefulSet"}, one | {"kind": "DaemonSet"}]
        self.workload.write_text(yaml.safe_dump_all([yaml.safe_load(self.workload.read_text()), *others]))
        rendered = [one for one in kustomize(self.overlay) if "template" in one.get("spec", {})]
        with_it = [manifests.title(one) for one in rendered if "initContainers" in one["spec"]["template"]["spec"]]
        self.assertEqual((len(rendered), with_it), (4, ["Deployment/workload"]))

    def test_is_beside_a_stateful_set_too(self) -> None:
        self.change("kind: Deployment", "kind: StatefulSet")
        self.change("  # Else two pods, and two exporters, overlap while one follows the other.\n", "")
        self.change("  strategy:\n    type: Recreate\n", "  serviceName: workload\n")
        rendered = kustomize(self.overlay)
        workload = manifests.find(rendered, "StatefulSet")
        self.assertEqual([p for one in rendered for p in manifests.schema_problems(one)], [])
        self.assertEqual(
            workload["spec"]["template"]["spec"]["initContainers"],
            manifests.pod(kustomize(SIDECAR))["initContainers"],
        )

    def test_is_refused_where_nobody_says_how_many(self) -> None:
        """A DaemonSet with the label has no replicas."""
        self.change("kind: Deployment", "kind: DaemonSet")
        self.change("  replicas: 1\n", "")
        with self.assertRaisesRegex(Refused, "/spec/replicas"):
            kustomize(self.overlay)


class Rules(unittest.TestCase):
    def test_are_written_from_the_rule_files(self) -> None:
        specification = importlib.util.spec_from_file_location("rules_of_kustomize", KUBERNETES / "rules.py")
        generator = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(generator)
        folder = KUBERNETES / "components" / "rules"
        held = {path.name: path.read_text() for path in folder.iterdir()}
        differ = sorted(name for name in held | generator.texts() if held.get(name) != generator.texts().get(name))
        self.assertEqual(differ, [], f"run `{generator.COMMAND}`")

    def test_are_those_of_the_rule_files(self) -> None:
        """As data, so that the writing of them is tested too."""
        rendered = {one["metadata"]["name"]: one for one in kustomize(SERVICE) if one["kind"] == "PrometheusRule"}
        files = {path.stem: path for path in (ROOT / "deploy" / "alerts").glob("*.yaml")}
        self.assertEqual(rendered.keys(), files.keys())
        for name, path in files.items():
            with self.subTest(name):
                self.assertEqual(rendered[name]["spec"], yaml.load(path.read_text(), yaml.CSafeLoader))


class Dashboards(unittest.TestCase):
    def test_are_maps_that_grafana_finds(self) -> None:
        maps = [one for one in kustomize(SERVICE) if one["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        held = {key: text for one in maps for key, text in one["data"].items()}
        files = sorted((ROOT / "grafana").glob("*.json"))
        self.assertEqual(held, {f"cloudtrail-tls-{path.name}": path.read_text() for path in files})
        self.assertEqual(len(maps), len(files))


if __name__ == "__main__":
    unittest.main()

"""The compose stack, without Docker: its schema, that all it names exists, and its parts run with its commands."""

import importlib.resources
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import unittest
import urllib.request

import jsonschema
import policies
import program
import yaml

ROOT = policies.ROOT
COMPOSE = ROOT / "deploy" / "compose"
STACK = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES = STACK["services"]
PROMETHEUS = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
# The images that have a wget, from busybox, and the port that each listens on unless told otherwise.
PORTS = {"prom/prometheus": 9090, "prom/alertmanager": 9093, "grafana/grafana": 3000}
EXPORTER = "exporter:10013"


def mounts(service: str) -> dict[str, str]:
    """What is mounted, by where."""
    parts = [mount.split(":") for mount in SERVICES[service].get("volumes", [])]
    return {target: source for source, target, *_ in parts}


def on_host(service: str, path: str) -> pathlib.Path | None:
    """The file of the repository that a container sees at a path."""
    for target, source in mounts(service).items():
        if source.startswith(".") and (path == target or path.startswith(f"{target}/")):
            return (COMPOSE / source).resolve() / path[len(target) :].lstrip("/")
    return None


def mounted(service: str, folder: str) -> dict[str, pathlib.Path]:
    """The single files that are mounted into a folder, by their names there."""
    inside = [target for target in mounts(service) if target.rpartition("/")[0] == folder]
    return {target.rpartition("/")[2]: on_host(service, target) for target in inside}


def is_writable(service: str, path: str) -> bool:
    targets = [target for target, source in mounts(service).items() if not source.startswith(".")]
    targets += [each.partition(":")[0] for each in SERVICES[service].get("tmpfs", [])]
    return any(path == target or path.startswith(f"{target}/") for target in targets)


def published() -> dict[str, str]:
    """The service behind `name:port`, for each port that a container listens on."""
    ports = [(name, port.rpartition(":")[2]) for name, service in SERVICES.items() for port in service["ports"]]
    return {f"{name}:{port}": name for name, port in ports}


class File(unittest.TestCase):
    def test_it_is_as_the_compose_specification_says(self) -> None:
        file = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
        schema = json.loads(file.read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        self.assertEqual([error.message for error in validator.iter_errors(STACK)], [])

    def test_containers_may_do_little_and_are_reached_from_this_machine_alone(self) -> None:
        for name, service in SERVICES.items():
            with self.subTest(name):
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertFalse({"privileged", "network_mode", "pid", "cap_add"} & set(service))
                for port in service["ports"]:
                    self.assertRegex(port, r"^127\.0\.0\.1:(\d+):\1$")

    def test_images_are_pinned_and_health_is_asked_with_what_is_in_them(self) -> None:
        for name, service in SERVICES.items():
            image, _, tag = service["image"].rpartition(":")
            with self.subTest(name):
                if "build" in service:
                    continue
                self.assertRegex(tag, r"^v?\d+\.\d+\.\d+$")
                self.assertEqual(service["healthcheck"]["test"][:5], ["CMD", "wget", "-q", "-O", "/dev/null"])
                self.assertIn(f"http://localhost:{PORTS[image]}/", service["healthcheck"]["test"][5])
                self.assertIn(f"{name}:{PORTS[image]}", published())

    def test_the_exporters_image_runs_the_program_with_the_command_and_has_nothing_to_ask_its_health_with(self) -> None:
        build = SERVICES["exporter"]["build"]
        dockerfile = ((COMPOSE / build["context"]).resolve() / build["dockerfile"]).read_text()
        self.assertEqual((COMPOSE / build["context"]).resolve(), ROOT)
        self.assertRegex(dockerfile, r'(?m)^ENTRYPOINT \["/[\w/]*cloudtrail-tls-exporter"\]$')
        self.assertEqual(re.findall(r"(?m)^FROM (\S+)", dockerfile)[-1], "scratch")
        self.assertNotIn("healthcheck", SERVICES["exporter"])

    def test_who_waits_for_health_waits_for_one_that_tells_it(self) -> None:
        for name, service in SERVICES.items():
            for other, wait in service.get("depends_on", {}).items():
                with self.subTest(name, other=other):
                    if wait["condition"] == "service_healthy":
                        self.assertIn("healthcheck", SERVICES[other])

    def test_every_mounted_file_is_there_and_read_only(self) -> None:
        used = set()
        for name, service in SERVICES.items():
            for mount in service.get("volumes", []):
                with self.subTest(name, mount=mount):
                    source, target, *mode = mount.split(":")
                    if source.startswith("."):
                        self.assertTrue((COMPOSE / source).exists())
                        self.assertEqual(mode, ["ro"])
                    else:
                        used.add(source)
                        self.assertEqual(mode, [])
            self.assertEqual(len(mounts(name)), len(service.get("volumes", [])), "two at one place")
        self.assertEqual(used, set(STACK["volumes"]))

    def test_every_path_in_a_command_is_mounted(self) -> None:
        seen = 0
        for name, service in SERVICES.items():
            for argument in service.get("command", []):
                path = argument.partition("=")[2]
                if path.startswith("/"):
                    seen += 1
                    with self.subTest(name, argument=argument):
                        file = on_host(name, path)
                        self.assertTrue(file.is_file() if file else is_writable(name, path))
        self.assertEqual(seen, 4)


class Prometheus(unittest.TestCase):
    def test_it_reads_every_rule_file_of_the_project(self) -> None:
        (pattern,) = PROMETHEUS["rule_files"]
        folder, _, glob = pattern.rpartition("/")
        found = set(on_host("prometheus", folder).glob(glob))
        self.assertEqual(found, set((ROOT / "deploy" / "alerts").glob("*.yaml")))
        self.assertTrue(found)

    def test_it_scrapes_the_exporter_and_tells_alertmanager_at_ports_that_they_have(self) -> None:
        (job,) = PROMETHEUS["scrape_configs"]
        self.assertEqual(job["static_configs"], [{"targets": [EXPORTER]}])
        (alertmanager,) = PROMETHEUS["alerting"]["alertmanagers"]
        self.assertEqual(alertmanager["static_configs"], [{"targets": ["alertmanager:9093"]}])
        self.assertLessEqual({EXPORTER, "alertmanager:9093"}, set(published()))
        self.assertIn("cloudtrail-tls", job["job_name"])  # by which the rules know it

    def test_alertmanager_reads_the_projects_example(self) -> None:
        file = on_host("alertmanager", "/etc/alertmanager/alertmanager.yml")
        self.assertEqual(file, ROOT / "deploy" / "alertmanager" / "alertmanager.yml")


class Grafana(unittest.TestCase):
    provisioning = "/etc/grafana/provisioning"

    def test_it_has_every_dashboard_where_its_provider_looks(self) -> None:
        (file,) = mounted("grafana", f"{self.provisioning}/dashboards").values()
        (provider,) = yaml.safe_load(file.read_text())["providers"]
        folder = provider["options"]["path"]
        dashboards = {each.name: each for each in (ROOT / "grafana").glob("*.json")}
        self.assertEqual(mounted("grafana", folder), dashboards)
        home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertEqual(on_host("grafana", home), ROOT / "grafana" / "overview.json")

    def test_its_data_source_is_this_prometheus_and_else_the_projects(self) -> None:
        (file,) = mounted("grafana", f"{self.provisioning}/datasources").values()
        (source,) = yaml.safe_load(file.read_text())["datasources"]
        (other,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
        host = source["url"].removeprefix("http://")
        self.assertEqual(published().get(host), "prometheus")
        self.assertEqual({**source, "url": other["url"]}, other)
        self.assertEqual(source["jsonData"]["timeInterval"], PROMETHEUS["global"]["scrape_interval"])

    def test_its_data_source_is_of_the_type_that_the_dashboards_choose_from(self) -> None:
        (file,) = mounted("grafana", f"{self.provisioning}/datasources").values()
        (source,) = yaml.safe_load(file.read_text())["datasources"]
        self.assertIs(source["isDefault"], True)
        for dashboard in (ROOT / "grafana").glob("*.json"):
            text = dashboard.read_text()
            chosen = [each for each in json.loads(text)["templating"]["list"] if each["type"] == "datasource"]
            self.assertEqual([each["query"] for each in chosen], [source["type"]], dashboard.name)
            # No data source is named but by that variable, and Grafana's own.
            uids = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]*)"', text))
            self.assertLessEqual(uids, {"${" + chosen[0]["name"] + "}", "-- Grafana --"})
            self.assertIn("${" + chosen[0]["name"] + "}", uids)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def asked(url: str):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)["data"]


class Together(unittest.TestCase):
    """Each part with its own command, but for the ports and paths of this machine; Grafana cannot be had."""

    programs = {"exporter": str(program.BINARY), "prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.ports = {EXPORTER: free_port(), "alertmanager:9093": free_port(), "prometheus:9090": free_port()}

    def here(self, service: str, text: str) -> str:
        """Hosts, ports and paths of containers as those of this machine; a port alone would be all of its addresses."""
        for place, port in self.ports.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(place)}\b", f"127.0.0.1:{port}", text)
            text = text.replace(f"listen-address=:{place.partition(':')[2]}", f"listen-address=127.0.0.1:{port}")
        for target, source in mounts(service).items():
            file = (COMPOSE / source).resolve() if source.startswith(".") else self.folder / source
            if target == "/etc/prometheus/prometheus.yml":
                file = self.folder / "prometheus.yml"
            text = re.sub(rf"(?<![\w/]){re.escape(target)}(?![\w-])", str(file), text)
        return text

    def start(self, service: str, *more: str) -> None:
        arguments = [self.here(service, argument) for argument in SERVICES[service]["command"]]
        with open(self.folder / f"{service}.log", "w") as log:
            process = subprocess.Popen(
                [self.programs[service], *arguments, *more],
                env=program.environment(TMPDIR=str(self.folder)),
                stdout=log,
                stderr=log,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    def healthy(self, service: str) -> None:
        image_port = PORTS[SERVICES[service]["image"].rpartition(":")[0]]
        url = SERVICES[service]["healthcheck"]["test"][5]
        url = url.replace(f"localhost:{image_port}", f"127.0.0.1:{self.ports[f'{service}:{image_port}']}")
        program.wait_for(url, lambda: ok(url))

    def test_the_exporter_is_scraped_rules_are_evaluated_and_alertmanager_is_found(self) -> None:
        alertmanager = f"127.0.0.1:{self.ports['alertmanager:9093']}"
        prometheus = f"127.0.0.1:{self.ports['prometheus:9090']}"
        config = self.folder / "prometheus.yml"
        config.write_text(self.here("prometheus", (COMPOSE / "prometheus.yml").read_text()).replace("15s", "1s"))
        checked = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, timeout=60)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        for file in (ROOT / "deploy" / "alerts").glob("*.yaml"):
            self.assertIn(str(file), checked.stdout)

        self.start("exporter")
        self.start("alertmanager", f"--web.listen-address={alertmanager}")
        self.healthy("alertmanager")
        self.start("prometheus", f"--web.listen-address={prometheus}")
        self.healthy("prometheus")

        api = f"http://{prometheus}/api/v1"
        program.wait_for("calls", lambda: asked(f"{api}/query?query=cloudtrail_tls_calls_total")["result"])
        program.wait_for("alertmanager", lambda: asked(f"{api}/alertmanagers")["activeAlertmanagers"])
        # Groups are evaluated within their interval, so not all have been yet.
        health = lambda: [rule["health"] for group in asked(f"{api}/rules")["groups"] for rule in group["rules"]]
        program.wait_for("rules", lambda: "ok" in health())
        self.assertLessEqual(set(health()), {"ok", "unknown"})
        files = [yaml.safe_load(file.read_text()) for file in (ROOT / "deploy" / "alerts").glob("*.yaml")]
        self.assertEqual(len(health()), sum(len(group["rules"]) for file in files for group in file["groups"]))


if __name__ == "__main__":
    unittest.main()

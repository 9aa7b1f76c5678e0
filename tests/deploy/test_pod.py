"""The rendered pods run: the program with exactly their arguments, environment, user, mounts and read-only root."""

import copy
import datetime
import shutil
import tempfile
import unittest
from pathlib import Path

import manifests
import pod
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubetools import HERE, KUBERNETES, kustomize, template
from test_kustomize import variant

SOURCE_UP = "cloudtrail_tls_exporter_source_up"
EPHEMERAL = "cloudtrail_tls_exporter_state_ephemeral"
CHART_VALUES = HERE / "values" / "good"
# Web configurations: TLS alone, and what clients must show besides.
AT = "/etc/cloudtrail-tls-exporter-web"
TLS = f"tls_server_config:\n  cert_file: {AT}/tls.crt\n  key_file: {AT}/tls.key\n"
CLIENTS = f"""\
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: {AT}/client-ca.crt
basic_auth_users:
  prometheus: $2b$04$cloudtrailtlsexporterOuJjiwj.IrwbV/SPWgm2LyUqHB7.BPJu
"""
PASSWORD = "correct horse"


def certificate(folder: Path, name: str) -> None:
    """tls.crt, tls.key and ca.crt of a name, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    text = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "tls.crt").write_bytes(text)
    (folder / "ca.crt").write_bytes(text)
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


class APod(unittest.TestCase):
    def setUp(self) -> None:
        self.state = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def scrape(self, running: pod.Running) -> str:
        status, text = running.get(running.container["ports"][0]["name"], "/metrics")
        self.assertEqual(status, 200)
        return text

    def ends(self, running: pod.Running, rendered: list[dict]) -> None:
        """Well within its grace, with 0."""
        grace = manifests.pod(rendered).get("terminationGracePeriodSeconds", 30)
        self.assertEqual(running.terminate(grace), 0, running.log.read_text())

    def test_of_the_service_overlay_serves_and_ends(self) -> None:
        rendered = kustomize(KUBERNETES / "overlays" / "service")
        for start in ("first", "again"):
            with self.subTest(start), pod.running(rendered, self.state) as running:
                running.wait_for("readinessProbe")
                self.assertEqual(running.probe("startupProbe"), 200)
                self.assertEqual(running.probe("livenessProbe"), 200)
                text = self.scrape(running)
                self.assertEqual(pod.sample(text, SOURCE_UP), [0], "AWS is out of reach")
                self.assertEqual(pod.sample(text, EPHEMERAL), [0])
                self.assertTrue((self.state / "state.db").is_file())
                self.ends(running, rendered)

    def test_of_the_sidecar_serves_from_memory(self) -> None:
        rendered = kustomize(KUBERNETES / "overlays" / "sidecar")
        with pod.running(rendered, self.state) as running:
            running.wait_for("livenessProbe")
            text = self.scrape(running)
            self.assertEqual(pod.sample(text, SOURCE_UP), [0])
            self.assertEqual(pod.sample(text, EPHEMERAL), [1])
            self.ends(running, rendered)
        self.assertEqual(list(self.state.iterdir()), [])

    def test_of_the_ephemeral_component_serves_from_memory(self) -> None:
        rendered = variant("ephemeral")
        with pod.running(rendered, self.state) as running:
            running.wait_for("readinessProbe")
            self.assertEqual(pod.sample(self.scrape(running), EPHEMERAL), [1])
            self.ends(running, rendered)

    def test_of_the_chart_serves(self) -> None:
        for values in ("least", "all"):
            rendered = template("--values", CHART_VALUES / f"{values}.yaml")
            with self.subTest(values), pod.running(rendered, self.state) as running:
                running.wait_for("readinessProbe")
                self.assertEqual(running.probe("startupProbe"), 200)
                self.assertEqual(running.probe("livenessProbe"), 200)
                self.assertEqual(pod.sample(self.scrape(running), SOURCE_UP), [0])
                self.ends(running, rendered)

    def test_with_a_web_configuration_is_scraped_by_its_monitor_alone_and_probed_by_all(self) -> None:
        """By TLS, by that and a client's certificate and a password, and by the chart's."""
        server, user = (Path(self.enterContext(tempfile.TemporaryDirectory())) for _ in range(2))
        certificate(server, "cloudtrail-tls-exporter")
        certificate(user, "prometheus")
        (user / "username").write_text("prometheus")
        (user / "password").write_text(PASSWORD)
        shutil.copy(user / "ca.crt", server / "client-ca.crt")
        secrets = {"cloudtrail-tls-exporter-web": server, "cloudtrail-tls-exporter-user": user}
        chart = template("--values", CHART_VALUES / "web_config.yaml")
        cases = {
            "web-config": (variant("web-config"), TLS),
            "patches": (variant("patches"), TLS + CLIENTS),
            "chart": (chart, TLS + CLIENTS),
        }
        for name, (rendered, web) in cases.items():
            for file in ("web-config.yaml", "web.yaml"):
                (server / file).write_text(web)
            with self.subTest(name), pod.running(rendered, self.state, secrets) as running:
                running.wait_for("readinessProbe")
                self.assertEqual(running.probe("livenessProbe"), 200)
                probe = running.container["readinessProbe"]["httpGet"]["port"]
                self.assertEqual(running.get(probe, "/metrics")[0], 404)
                monitor = manifests.find(rendered, "ServiceMonitor")["spec"]["endpoints"][0]
                status, text = self.scrape_by(monitor, running, secrets)
                self.assertEqual(status, 200)
                self.assertEqual(pod.sample(text, SOURCE_UP), [0])
                self.assertNotEqual(running.get(monitor["port"], "/metrics")[0], 200)
                for key in ("basicAuth", "cert"):
                    if CLIENTS in web:
                        self.assertNotEqual(self.scrape_by(without(monitor, key), running, secrets)[0], 200, key)
                self.ends(running, rendered)

    def scrape_by(self, monitor: dict, running: pod.Running, secrets: dict[str, Path]) -> tuple[int, str]:
        """As Prometheus scrapes by this endpoint of a monitor."""

        def held(key: dict) -> Path:
            return secrets[key["name"]] / key["key"]

        trusted = monitor["tlsConfig"]
        options = ["--connect-to", "::localhost:", "--cacert", str(held(trusted["ca"]["secret"]))]
        if "cert" in trusted:
            options += ["--cert", str(held(trusted["cert"]["secret"])), "--key", str(held(trusted["keySecret"]))]
        if "basicAuth" in monitor:
            user, password = (held(monitor["basicAuth"][key]).read_text() for key in ("username", "password"))
            options += ["--user", f"{user}:{password}"]
        scheme, host = monitor["scheme"], trusted["serverName"]
        return running.get(monitor["port"], "/metrics", *options, scheme=scheme, host=host)


def without(monitor: dict, key: str) -> dict:
    """The endpoint without this of what it shows."""
    trusted = {one: value for one, value in monitor["tlsConfig"].items() if one != key}
    return {one: value for one, value in monitor.items() if one != key} | {"tlsConfig": trusted}


class ThePodsWalls(unittest.TestCase):
    """The tests above could fail: what the manifests give is needed."""

    def setUp(self) -> None:
        self.state = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.rendered = copy.deepcopy(kustomize(KUBERNETES / "overlays" / "service"))
        self.container = manifests.exporter(manifests.pod(self.rendered))

    def log_of_a_start_that_fails(self) -> str:
        with pod.running(self.rendered, self.state) as running:
            with self.assertRaises(AssertionError):
                running.wait_for("readinessProbe")
            self.assertIsNotNone(running.process.poll())
            return running.log.read_text()

    def test_the_root_is_read_only(self) -> None:
        self.container["volumeMounts"] = [one for one in self.container["volumeMounts"] if one["name"] != "state"]
        self.assertIn("Read-only file system", self.log_of_a_start_that_fails())

    def test_the_user_is_the_one_of_the_manifest(self) -> None:
        with pod.running(self.rendered, self.state) as running:
            running.wait_for("readinessProbe")
            self.assertEqual(Path(f"/proc/{running.pid}/uid_map").read_text().split()[0], "65534")

    def test_the_arguments_are_those_of_the_manifest(self) -> None:
        self.container["args"][0] = "--config.file=/etc/other.toml"
        self.assertIn("/etc/other.toml", self.log_of_a_start_that_fails())

    def test_the_environment_is_that_of_the_manifest(self) -> None:
        self.container["env"] = [{"name": "CLOUDTRAIL_TLS__STATE__NONSENSE", "value": "1"}]
        self.assertIn("nonsense", self.log_of_a_start_that_fails().lower())


if __name__ == "__main__":
    unittest.main()

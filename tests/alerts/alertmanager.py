"""A real Alertmanager over the shipped example, and the webhook that keeps what it sends."""

import http.server
import json
import pathlib
import threading
import urllib.request

import rules
import yaml
from programs import Program, free_port

EXAMPLE = rules.ROOT / "deploy" / "alertmanager" / "alertmanager.yml"


class Webhook(http.server.ThreadingHTTPServer):
    """Keeps each notification: its receiver, and its alerts as Alertmanager sends them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebhookRequest)
        self.notifications: list[tuple[str, list[dict]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class WebhookRequest(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.notifications.append((self.path.strip("/"), body["alerts"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Alertmanager(Program):
    """The example, in a hurry and with a webhook for each receiver."""

    def __init__(self, folder: pathlib.Path, webhook: Webhook) -> None:
        config = yaml.safe_load(EXAMPLE.read_text())
        hurry(config["route"])
        for receiver in config["receivers"]:
            url = f"http://127.0.0.1:{webhook.server_port}/{receiver['name']}"
            receiver["webhook_configs"] = [{"url": url}]
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml"]
        command += [f"--storage.path={folder}/alertmanager", "--cluster.listen-address="]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        super().__init__(command, port, folder / "alertmanager.log")

    def post(self, alerts: list[dict]) -> None:
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v2/alerts", body, headers), timeout=30).close()


def hurry(route: dict) -> None:
    route.update(group_wait="1s", group_interval="1s")
    for child in route.get("routes", ()):
        hurry(child)

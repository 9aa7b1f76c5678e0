"""The process of moto's STS: started when it is first needed, and ended by the end of the double."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

SERVER = Path(__file__).resolve().parent / "sts_server.py"
TIMEOUT_SECONDS = 60


class StsProcess:
    """The double holds the one end of the process's stdin, so however the double ends, the process sees it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.started_on: int | None = None

    def port(self) -> int:
        """Where it listens; waits for its start if it has not been started."""
        with self.lock:
            if self.started_on is None:
                environment = os.environ | {"AWS_EC2_METADATA_DISABLED": "true"}
                command = [sys.executable, str(SERVER)]
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
                )
                line = self.process.stdout.readline()
                if not line:
                    raise RuntimeError("moto's STS does not start, see its stderr")
                self.started_on = json.loads(line)["port"]
            return self.started_on

    def post(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["content-type"], answer.read()
        finally:
            connection.close()

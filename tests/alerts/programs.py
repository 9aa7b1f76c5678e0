"""Programs that a test starts: each has a log, is waited for until it is ready, and is ended by its own id. However the
test ends, they end with it."""

import pathlib
import socket
import subprocess
import time
import urllib.request

DEADLINE = 60  # seconds for what takes two
# The kernel kills it when who started it has ended, killed or not.
ENDS_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Program:
    """A program that serves HTTP on a port of this machine."""

    def __init__(self, command: list[str], port: int, log: pathlib.Path) -> None:
        self.command, self.log = command, log
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        with open(self.log, "a", encoding="utf-8") as file:
            command = [*ENDS_WITH_PARENT, *self.command]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        until = time.monotonic() + DEADLINE
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise AssertionError(f"{self.command[0]} does not start:\n{self.log.read_text(encoding='utf-8')}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=5).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Kills it, as a crash would."""
        self.process.kill()
        self.process.wait()

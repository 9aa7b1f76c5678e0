"""The built program: run to its end, or served for a while."""

import os
import pathlib
import signal
import subprocess
import time

BINARY = pathlib.Path(__file__).resolve().parents[2] / "target" / "debug" / "cloudtrail-tls-exporter"
DEADLINE = 60  # seconds for what takes two


def environment(**variables: str) -> dict[str, str]:
    """Nothing of this machine's but the path, and no look for an instance's credentials."""
    return {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true", **variables}


def run(arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess:
    command = [str(BINARY), *arguments]
    return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, timeout=DEADLINE)


def wait_for(what: str, found):
    """The first answer that is not false."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {DEADLINE} s")


class Served:
    """The program, serving; its log goes to a file."""

    def __init__(self, arguments: list[str], variables: dict[str, str], log: pathlib.Path) -> None:
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [str(BINARY), *arguments], env=environment(**variables), stdout=subprocess.DEVNULL, stderr=file
            )

    def end(self) -> int:
        """As a service manager ends it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=DEADLINE)
        finally:
            self.process.kill()

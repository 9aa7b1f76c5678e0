"""The exporter's container of a rendered pod, run as Kubernetes would: its arguments, environment, user, mounts and
read-only root (bubblewrap), in a network of its own from which nothing leads outside."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from manifests import EXPORTER, environment, exporter, pod

PROGRAM = "/cloudtrail-tls-exporter"
# All that an image has beside the program: its libraries, and the certificates of authorities.
IMAGE = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
IMAGE += ["--ro-bind", "/etc/ssl", "/etc/ssl"]
# All that a container runtime brings.
RUNTIME = ["--dev-bind", "/dev/null", "/dev/null", "--ro-bind", "/proc", "/proc"]
# What AWS's webhook would give, and no search for an instance's role.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
SECONDS = 30


class Running:
    """A container that runs; `process` is bubblewrap, which ends with it."""

    def __init__(self, container: dict, process: subprocess.Popen, pid: int, log: Path) -> None:
        self.container, self.process, self.pid, self.log = container, process, pid, log

    def get(
        self, name: str, path: str, *options: str, scheme: str = "http", host: str = "localhost"
    ) -> tuple[int, str]:
        """Status and body of a named port, asked from within the pod's network; 0 if nobody answers."""
        (port,) = [one["containerPort"] for one in self.container["ports"] if one["name"] == name]
        enter = ["nsenter", "--user", "--net", "--preserve-credentials", "--target", str(self.pid), "--"]
        curl = ["curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", *options]
        url = f"{scheme}://{host}:{port}{path}"
        answer = subprocess.run([*enter, *curl, url], capture_output=True, text=True, check=False).stdout
        body, _, status = answer.rpartition("\n")
        return int(status or 0), body

    def probe(self, kind: str) -> int:
        """The status that a probe gets."""
        asked = self.container[kind]["httpGet"]
        return self.get(asked["port"], asked["path"])[0]

    def wait_for(self, kind: str) -> None:
        deadline = time.monotonic() + SECONDS
        while self.probe(kind) != 200:
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{kind}: never 200; {'ended' if ended else 'runs'}:\n{self.log.read_text()}")
            time.sleep(0.05)

    def terminate(self, grace: int) -> int:
        """As Kubernetes ends it; the exit code. Longer than the grace is an error."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(timeout=grace)


def command(manifests: list[dict], state: Path, given: dict[str, Path], folder: Path) -> list[str]:
    """bubblewrap's, for the exporter's container; `given` are the folders of Secrets that the user makes."""
    spec = pod(manifests)
    container = exporter(spec)
    context = {**spec.get("securityContext", {}), **container["securityContext"]}
    maps = {one["metadata"]["name"]: one.get("data", {}) for one in manifests if one["kind"] == "ConfigMap"}
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    walls = ["--unshare-user", "--unshare-net", "--unshare-ipc", "--die-with-parent", "--clearenv"]
    walls += ["--uid", str(context["runAsUser"]), "--gid", str(context["runAsGroup"])]
    walls += [*IMAGE, "--ro-bind", EXPORTER, PROGRAM, *RUNTIME]
    for mount in container["volumeMounts"]:
        volume, at = volumes[mount["name"]], mount["mountPath"]
        if "configMap" in volume:
            source = folder / mount["name"]
            source.mkdir(exist_ok=True)
            for name, text in maps[volume["configMap"]["name"]].items():
                (source / name).write_text(text)
            walls += ["--ro-bind", source, at]
        elif "secret" in volume:
            walls += ["--ro-bind", given[volume["secret"]["secretName"]], at]
        elif "persistentVolumeClaim" in volume:
            walls += ["--bind", state, at]
        else:
            walls += ["--tmpfs", at]
    if context["readOnlyRootFilesystem"]:
        walls += ["--remount-ro", "/"]
    for name, value in {**CREDENTIALS, **environment(container)}.items():
        walls += ["--setenv", name, value]
    return ["bwrap", *map(str, walls), "--", PROGRAM, *container["args"]]


@contextlib.contextmanager
def running(manifests: list[dict], state: Path, given: dict[str, Path] | None = None) -> Iterator[Running]:
    """Started, not waited for; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log"
        reader, writer = os.pipe()
        started = command(manifests, state, given or {}, folder)
        told = ["--json-status-fd", str(writer)]
        with log.open("w") as output:
            walled = [started[0], *told, *started[1:]]
            process = subprocess.Popen(walled, stdout=output, stderr=output, pass_fds=[writer])
        os.close(writer)
        with os.fdopen(reader) as status:  # open to the end: bubblewrap tells the exit code too
            line = status.readline()
            try:
                assert line, f"bubblewrap does not start it: {log.read_text()}"
                yield Running(exporter(pod(manifests)), process, json.loads(line)["child-pid"], log)
            finally:
                process.kill()
                process.wait()


def sample(text: str, series: str) -> list[float]:
    """The values of a family or of one series in a scrape."""
    return [float(value) for value in re.findall(rf"^{re.escape(series)}(?:{{[^\n]*}})? (\S+)$", text, re.MULTILINE)]

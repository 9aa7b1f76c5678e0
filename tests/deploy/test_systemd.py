"""The systemd unit: systemd's own checks, that all it names exists, and the program under its restrictions.

What is not tried is systemd itself, which cannot run here: bubblewrap stands in for its namespaces, and the same
seccomp filters are built by libseccomp (see `unit`)."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import unit

PATIENCE = 120
CALLS = (
    'cloudtrail_tls_calls_total{source="trail",aws_service="s3",tls_version="TLSv1.3",event_name="GetObject",'
    'account_id="111122223333"}'
)
FAILED = (
    'cloudtrail_tls_exporter_batch_failures_total{reason="connection",source="history",worker_account="",'
    'worker_region="eu-west-1"}'
)
DOCUMENTED = re.compile(r"^#(\[Service\]|\w+=.*)$", re.MULTILINE)
# In the sandbox, this tries what the unit forbids, and prints what came of it.
TRIES = """
import ctypes, json, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(call):
    try:
        return str(call())
    except OSError as error:
        return os.strerror(error.errno)
def errno(result):
    return "done" if result != -1 else os.strerror(ctypes.get_errno())
print(json.dumps({
    "user": f"{os.getuid()} {os.getgid()}",
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))],
    "others": tried(lambda: [name for name in os.listdir("/proc") if name.isdigit() and name != str(os.getpid())]),
    "system": tried(lambda: open("/usr/x", "w")),
    "configuration": tried(lambda: open("/etc/cloudtrail-tls-exporter/config.toml", "w")),
    "home": tried(lambda: os.listdir("/home")),
    "state": oct(os.stat("/var/lib/cloudtrail-tls-exporter").st_mode & 0o777),
    "new file": oct(os.fstat(os.open("/var/lib/cloudtrail-tls-exporter/x", os.O_CREAT, 0o666)).st_mode & 0o777),
    "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "packets": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "inet": tried(lambda: socket.socket(socket.AF_INET).close()),
    "writable code": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "namespace": errno(libc.unshare(0x10000000)),
    "personality": errno(libc.personality(0x0040000)),
    "setuid bit": tried(lambda: os.chmod("/var/lib/cloudtrail-tls-exporter", 0o4700)),
}))
"""
FORBIDDEN = {
    "user": f"{unit.USER} {unit.USER}",
    "capabilities": ["0000000000000000"] * 2,
    "others": "[]",
    "system": "Read-only file system",
    "configuration": "Read-only file system",
    "home": "[]",
    "state": "0o700",
    "new file": "0o600",
    "netlink": "Address family not supported by protocol",
    "packets": "Address family not supported by protocol",
    "inet": "None",
    "writable code": "Operation not permitted",
    "namespace": "Operation not permitted",
    "personality": "Operation not permitted",
    "setuid bit": "Operation not permitted",
}


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verified(text: str) -> tuple[int, str]:
    """What `systemd-analyze verify` says of a unit whose program is the one under test."""
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, unit.UNIT.name)
        path.write_text(text.replace("=/usr/local/bin/cloudtrail-tls-exporter", f"={unit.BINARY}"))
        said = run("systemd-analyze", "--man=no", "verify", str(path))
    return said.returncode, said.stdout + said.stderr


class TheUnit(unittest.TestCase):
    def test_is_taken_by_systemd_without_a_word(self) -> None:
        self.assertEqual(verified(unit.UNIT.read_text()), (0, ""))
        code, said = verified(unit.UNIT.read_text().replace("UMask=", "Umask="))
        self.assertRegex(said, "Unknown key (name )?'Umask'", "systemd tells what it does not know")

    def test_is_taken_with_all_that_its_comments_offer(self) -> None:
        offered = "\n".join(DOCUMENTED.findall(unit.UNIT.read_text()))
        self.assertIn("LoadCredential=", offered)
        self.assertIn("SupplementaryGroups=", offered)
        (command,) = unit.settings("Service")["ExecStart"]
        _, offered_command = unit.settings("Service", offered)["ExecStart"]
        self.assertRegex(offered_command, rf"^{re.escape(command)} --web\.config\.file=/\S+$")
        self.assertEqual(verified(f"{unit.UNIT.read_text()}\n{offered}\n"), (0, ""))

    def test_is_exposed_by_1_5_at_most(self) -> None:
        command = ["systemd-analyze", "--no-pager", "security", "--offline=true", "--threshold=15", str(unit.UNIT)]
        said = run(*command)
        level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
        self.assertIsNotNone(level, said.stderr)
        self.assertLessEqual(float(level[1]), 1.5)
        self.assertEqual(said.returncode, 0, said.stderr)

    def test_has_no_setting_that_the_sandbox_does_not_know(self) -> None:
        service = unit.settings("Service")
        known = {"ExecStart", "SystemCallFilter", "RestrictAddressFamilies"}
        known |= unit.NOT_APPLIED.keys() | unit.APPLIED.keys() | unit.FILTERS.keys()
        self.assertEqual(set(service), known)
        self.assertEqual({key: service[key] for key in unit.APPLIED}, {k: [v] for k, v in unit.APPLIED.items()})
        self.assertEqual({key: service[key] for key in unit.FILTERS}, {key: ["yes"] for key in unit.FILTERS})

    def test_gives_the_store_as_long_as_the_health_path_does(self) -> None:
        status = (unit.ROOT / "src" / "status.rs").read_text()
        limit = re.search(r"STORE_LIMIT: Duration = Duration::from_secs\((\d+) \* 60\)", status)
        self.assertEqual(unit.settings("Service")["WatchdogSec"], [f"{limit[1]}min"])


class UnderTheUnit(unittest.TestCase):
    def setUp(self) -> None:
        home = tempfile.TemporaryDirectory()
        self.addCleanup(home.cleanup)
        self.home = Path(home.name)
        self.home.chmod(0o755)
        for folder in ["trail", "state", "run"]:
            (self.home / folder).mkdir()
        (self.home / "state").chmod(0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.home / "config.toml").write_text(
            f'web.listen_addresses = ["127.0.0.1:{self.port}"]\n'
            '[[sources]]\nname = "trail"\ntype = "trail_files"\nlocation = "/var/log/cloudtrail"\ninterval = "1s"\n'
            # Nobody listens there.
            '[[sources]]\nname = "history"\ntype = "event_history"\nregion = "eu-west-1"\n'
            'endpoint_url = "https://localhost:9"\n'
        )
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(str(self.home / "run" / "notify"))
        self.manager.settimeout(0.5)
        self.sandbox = unit.Sandbox(
            configuration=self.home / "config.toml",
            state=self.home / "state",
            visible={"/var/log/cloudtrail": self.home / "trail", "/run/systemd": self.home / "run"},
            environment={
                "NOTIFY_SOCKET": "/run/systemd/notify",
                "WATCHDOG_USEC": "1000000",
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "secret",
            },
        )

    def deliver(self, calls: int) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        records = [
            {
                "eventTime": now,
                "eventSource": "s3.amazonaws.com",
                "eventName": "GetObject",
                "eventID": f"{number:08x}-0000-4000-8000-000000000000",
                "recipientAccountId": "111122223333",
                "awsRegion": "eu-west-1",
                "tlsDetails": {"tlsVersion": "TLSv1.3"},
            }
            for number in range(calls)
        ]
        part = self.home / "trail" / "part"
        part.write_text(json.dumps({"Records": records}))
        subprocess.run(["gzip", "--suffix=.json.gz", part], check=True)

    def message(self, wanted: str, program: unit.Sandboxed) -> str:
        """The next message that begins so; the watchdog's may come in between."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ended = program.wrapper.poll()
            try:
                message = self.manager.recv(4096).decode()
            except TimeoutError:
                self.assertIsNone(ended, f"it ended while {wanted!r} was waited for")
                continue
            if message.startswith(wanted):
                return message
            self.assertEqual(message, "WATCHDOG=1\n", f"while {wanted!r} was waited for")
        self.fail(f"no {wanted!r}")

    def scrape_until(self, wanted: dict[str, float]) -> dict[str, float]:
        """Scrapes until series have these values at least."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE) as answer:
                lines = answer.read().decode().splitlines()
            samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            found = {series: float(value) for series, value in samples}
            if all(found.get(series, -1) >= value for series, value in wanted.items()):
                return found
            time.sleep(0.1)
        self.fail(f"no {wanted}")

    def test_programs_can_do_nothing_that_it_forbids(self) -> None:
        """Without this the test below would prove nothing."""
        command = ["/usr/bin/python3", "-S", "-c", TRIES]
        with self.sandbox.run(command, unit.settings("Service")) as program:
            out, err = program.wrapper.communicate(timeout=PATIENCE)
        self.assertEqual(json.loads(out or "{}"), FORBIDDEN, err)
        for call in ["os.nice(1)", "os.setpriority(os.PRIO_PROCESS, 0, 5)", "os.chroot('/tmp')"]:
            command = ["/usr/bin/python3", "-S", "-c", f"import os; {call}"]
            with self.sandbox.run(command, unit.settings("Service")) as program:
                program.wrapper.communicate(timeout=PATIENCE)
            self.assertEqual(program.wrapper.returncode, 128 + signal.SIGSYS, call)

    def test_the_program_starts_counts_reloads_and_stops(self) -> None:
        service = unit.settings("Service")
        with self.sandbox.run(shlex.split(service["ExecStart"][0]), service) as program:
            self.message("READY=1\n", program)
            self.message("WATCHDOG=1\n", program)
            self.deliver(7)
            # It gets as far as connecting to AWS: names are resolved, certificates read.
            scrape = self.scrape_until({CALLS: 7, FAILED: 1})
            # With `ProcSubset=pid` this one would be 0.
            self.assertGreater(scrape["process_start_time_seconds"], time.time() - PATIENCE)
            reload = shlex.split(service["ExecReload"][0].replace("$MAINPID", str(program.process)))
            subprocess.run(reload, check=True)
            self.message("RELOADING=1\nMONOTONIC_USEC=", program)
            self.assertEqual(self.message("READY=1\n", program), "READY=1\nSTATUS=ready\n")
            os.kill(program.process, signal.SIGTERM)
            self.message("STOPPING=1\n", program)
            _, log = program.wrapper.communicate(timeout=PATIENCE)
            self.assertEqual(program.wrapper.returncode, 0, log)
        self.assertIn("Connection refused", log)
        self.assertIn("message=reloaded", log)
        self.assertNotIn("level=error", log)
        store = self.home / "state" / "state.db"
        self.assertEqual(oct(store.stat().st_mode & 0o777), "0o600")


if __name__ == "__main__":
    unittest.main()

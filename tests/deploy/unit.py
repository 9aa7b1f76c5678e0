"""The systemd unit, and a sandbox that restricts a program as the unit says, made by bubblewrap without systemd.

Each setting of the unit is either applied or named with the reason why it cannot be; a new one that is in neither list
fails the tests."""

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import seccomp

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "cloudtrail-tls-exporter.service"
BINARY = ROOT / "target" / "debug" / "cloudtrail-tls-exporter"
# The user that systemd would make.
USER = 61234

# Settings that the sandbox does not apply, and why.
NOT_APPLIED = {
    "Type": "the tests are the service manager",
    "ExecReload": "the tests run it",
    "EnvironmentFile": "there is none",
    "TimeoutStartSec": "the tests have their own patience",
    "TimeoutStopSec": "the tests look how long it takes",
    "WatchdogSec": "the tests want a word more often",
    "Restart": "nobody restarts it here",
    "RestartSec": "nobody restarts it here",
    "RestartPreventExitStatus": "nobody restarts it here",
    "KeyringMode": "bubblewrap makes no session keyring",
    "RemoveIPC": "the namespace of IPC is its own",
    "SystemCallArchitectures": "the filters kill calls of other architectures",
    "SystemCallErrorNumber": "a call that is not allowed kills here, so that it is seen",
    "ProtectClock": "the filter and the capabilities cover it",
    "ProtectKernelLogs": "the filter and /dev cover it",
    "ProtectKernelModules": "the filter and the capabilities cover it",
    "RestrictRealtime": "the filter of @resources covers it",
    "PrivateMounts": "the namespace is its own",
}
# Settings behind which `sandbox` always is, with the value that it stands for.
APPLIED = {
    "DynamicUser": "yes",
    "StateDirectory": "cloudtrail-tls-exporter",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "LimitCORE": "0",
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "PrivateUsers": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
}
FILTERS = {
    "LockPersonality": seccomp.of_personality,
    "MemoryDenyWriteExecute": seccomp.of_memory,
    "RestrictNamespaces": seccomp.of_namespaces,
    "RestrictSUIDSGID": seccomp.of_modes,
}


def settings(section: str, text: str | None = None) -> dict[str, list[str]]:
    """The settings of a section, each with all its values in order."""
    found: dict[str, list[str]] = {}
    within = None
    for line in (UNIT.read_text() if text is None else text).splitlines():
        if line.startswith("["):
            within = line.strip("[]")
        elif within == section and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def filters(service: dict[str, list[str]]) -> list[seccomp.Filter]:
    made = [seccomp.of_calls(seccomp.allowed_calls(service["SystemCallFilter"]))]
    made.append(seccomp.of_families(service["RestrictAddressFamilies"][0].split()))
    made.extend(make() for key, make in FILTERS.items() if service[key] == ["yes"])
    return made


@dataclass
class Sandboxed:
    """A program that runs in the sandbox, and its process as this side knows it."""

    wrapper: subprocess.Popen
    process: int


@dataclass
class Sandbox:
    """Where programs run as the unit says."""

    configuration: Path
    state: Path
    # Further folders and files from outside, read only.
    visible: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """What is told to bubblewrap: a system that can only be read, and a folder for the state."""
        arguments = ["--unshare-all", "--share-net", "--uid", str(USER), "--gid", str(USER), "--cap-drop", "ALL"]
        arguments += ["--die-with-parent", "--as-pid-1", "--clearenv", "--chdir", "/"]
        for folder in ["/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin"]:
            path = Path(folder)
            if path.is_symlink():
                arguments += ["--symlink", os.readlink(path), folder]
            elif path.exists():
                arguments += ["--ro-bind", folder, folder]
        for file in ["/etc/ssl", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache"]:
            arguments += ["--ro-bind-try", file, file]
        # What lies there on this machine is not what the unit starts.
        arguments += ["--tmpfs", "/usr/local/bin", "--ro-bind", str(BINARY), f"/usr/local/bin/{BINARY.name}"]
        arguments += ["--ro-bind", str(self.configuration), "/etc/cloudtrail-tls-exporter/config.toml"]
        for inside, outside in self.visible.items():
            arguments += ["--ro-bind", str(outside), inside]
        arguments += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--dir", "/home"]
        arguments += ["--bind", str(self.state), "/var/lib/cloudtrail-tls-exporter", "--remount-ro", "/"]
        arguments += ["--remount-ro", "/usr/local/bin"]
        environment = {"STATE_DIRECTORY": "/var/lib/cloudtrail-tls-exporter", "PATH": "/usr/bin:/bin"}
        for name, value in (environment | self.environment).items():
            arguments += ["--setenv", name, value]
        return arguments

    @contextlib.contextmanager
    def run(self, command: list[str], service: dict[str, list[str]]) -> Iterator[Sandboxed]:
        """Starts a command under all restrictions of `service`; it ends with the block at the latest."""
        programs = [made.program() for made in filters(service)]
        read, write = os.pipe()
        arguments = ["bwrap", *self.arguments(), "--info-fd", str(write)]
        for program in programs:
            arguments += ["--add-seccomp-fd", str(program.fileno())]
        # The umask and the limits of resources come first: they are inherited.
        shell = f"umask 0077; ulimit -c 0; exec {shlex.join([*arguments, '--', *command])}"
        passed = [write, *(program.fileno() for program in programs)]
        wrapper = subprocess.Popen(
            ["/bin/sh", "-c", shell], pass_fds=passed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        os.close(write)
        try:
            with os.fdopen(read) as info:
                told = info.read()
            if not told:
                raise AssertionError(f"bwrap: {wrapper.communicate()[1]}")
            yield Sandboxed(wrapper, json.loads(told)["child-pid"])
        finally:
            wrapper.kill()
            wrapper.communicate()
            for program in programs:
                program.close()

"""Seccomp filters as systemd makes them from a unit, by libseccomp: the list of system calls, and the rules behind
`MemoryDenyWriteExecute`, `RestrictAddressFamilies`, `RestrictNamespaces`, `RestrictSUIDSGID` and `LockPersonality`."""

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
import tempfile

KILL, ALLOW = 0x80000000, 0x7FFF0000
EQUAL, GREATER, MASKED = 4, 6, 7

NAMESPACES = {
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# The argument that holds the mode.
MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2, "creat": 1}
MODES |= {"open": 2, "openat": 3}
EXECUTABLE_SHARED_MEMORY = 0o100000
OTHER_FAMILIES = 46


class Comparison(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def library() -> ctypes.CDLL:
    found = ctypes.CDLL("libseccomp.so.2")
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    return found


class Filter:
    """A filter of this default, and rules that say otherwise."""

    def __init__(self, default: int) -> None:
        self.library = library()
        self.context = self.library.seccomp_init(default)

    def add(self, action: int, call: str, *comparisons: Comparison) -> bool:
        """False where the machine knows no such call."""
        number = self.library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return False
        array = (Comparison * max(len(comparisons), 1))(*comparisons)
        code = self.library.seccomp_rule_add_array(self.context, action, number, len(comparisons), array)
        if code:
            raise OSError(-code, f"{call}: {os.strerror(-code)}")
        return True

    def refuse(self, call: str, *comparisons: Comparison, with_error: int = errno.EPERM) -> None:
        self.add(0x00050000 | with_error, call, *comparisons)

    def program(self) -> "tempfile._TemporaryFileWrapper":
        """The filter as the kernel takes it, in a file at its start."""
        file = tempfile.TemporaryFile()
        code = self.library.seccomp_export_bpf(self.context, file.fileno())
        if code:
            raise OSError(-code, os.strerror(-code))
        self.library.seccomp_release(self.context)
        file.seek(0)
        return file


def masked(argument: int, bits: int) -> Comparison:
    """All of these bits are set."""
    return Comparison(argument, MASKED, bits, bits)


def calls_of(names: list[str]) -> set[str]:
    """The calls behind names and groups (`@basic-io`), as this machine's systemd has them."""
    found, groups = set(), [name for name in names if name.startswith("@")]
    found |= set(names) - set(groups)
    while groups:
        command = ["systemd-analyze", "--no-pager", "syscall-filter", groups.pop()]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        for name in (line.strip() for line in listed):
            if name.startswith("@"):
                groups.append(name)
            elif name and not name.startswith("#"):
                found.add(name)
    return found


def allowed_calls(lines: list[str]) -> set[str]:
    """What the `SystemCallFilter=` lines of a unit leave; the first must be a list of what is allowed."""
    allowed = calls_of(lines[0].split())
    for line in lines[1:]:
        if line.startswith("~"):
            allowed -= calls_of(line[1:].split())
        else:
            allowed |= calls_of(line.split())
    # Always allowed, as systemd does it.
    return allowed | calls_of(["@default"]) | {"execve"}


def of_calls(allowed: set[str]) -> Filter:
    """Kills whoever calls anything else, where the unit only refuses it: so that it is seen."""
    made = Filter(KILL)
    if sum(made.add(ALLOW, call) for call in sorted(allowed)) < 200:
        raise ValueError("systemd-analyze lists too few system calls")
    return made


def of_memory() -> Filter:
    made = Filter(ALLOW)
    made.refuse("mmap", masked(2, mmap.PROT_WRITE | mmap.PROT_EXEC))
    for call in ["mprotect", "pkey_mprotect"]:
        made.refuse(call, masked(2, mmap.PROT_EXEC))
    made.refuse("shmat", masked(2, EXECUTABLE_SHARED_MEMORY))
    return made


def of_families(names: list[str]) -> Filter:
    made = Filter(ALLOW)
    allowed = {int(getattr(socket, name)) for name in names}
    for family in set(range(OTHER_FAMILIES)) - allowed:
        made.refuse("socket", Comparison(0, EQUAL, family, 0), with_error=errno.EAFNOSUPPORT)
    made.refuse("socket", Comparison(0, GREATER, OTHER_FAMILIES - 1, 0), with_error=errno.EAFNOSUPPORT)
    return made


def of_namespaces() -> Filter:
    made = Filter(ALLOW)
    for bit in NAMESPACES.values():
        made.refuse("clone", masked(0, bit))
        made.refuse("unshare", masked(0, bit))
    made.refuse("setns")
    # Its flags lie in memory, where no filter looks; libraries go back to `clone`.
    made.refuse("clone3", with_error=errno.ENOSYS)
    return made


def of_modes() -> Filter:
    made = Filter(ALLOW)
    for call, argument in MODES.items():
        for bit in [stat.S_ISUID, stat.S_ISGID]:
            made.refuse(call, masked(argument, bit))
    return made


def of_personality() -> Filter:
    made = Filter(ALLOW)
    made.refuse("personality", Comparison(0, GREATER, 0, 0))
    return made

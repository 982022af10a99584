"""What the process of a command may no longer do: `NOETL_WORKER_ISOLATION=basic` (docs/security.md).

Standard library only, and loaded by path too: the template process (`python_template.py`) enters the confinement at
its start, so that a command inherits it without a cost of its own. Linux has all of it, other systems the limits.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass

__all__ = [
    "UNCONFINED",
    "Confinement",
    "begin_supervisor",
    "enter",
    "hide_memory",
    "kill_children",
    "limit_memory",
    "memory_file",
    "missing",
]

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION_3 = 0x20080522
DROPPED = (19, 21, 38, 39)
"""CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF: each reads the memory of other processes, root's way around."""
OOM_FIRST = b"1000"
CHILDREN = "/proc/self/task/{}/children"

libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if libc is not None:
    libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


@dataclass(frozen=True)
class Confinement:
    """How the processes of commands are confined. Limits are of one process; 0: the machine's own."""

    level: str = "off"
    file_bytes: int = 0
    descriptors: int = 0
    memory_bytes: int = 0
    processes: int = 0
    """Of all commands of the worker together, threads counted, where a cgroup can be made for them."""
    duckdb_bytes: int = 0
    """No process: what a `duckdb` command may use of the worker's own memory."""

    @property
    def is_on(self) -> bool:
        return self.level != "off"

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of_text(text: str) -> Confinement:
        return Confinement(**json.loads(text))


UNCONFINED = Confinement()


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def missing(children: str = CHILDREN) -> list[str]:
    """What `basic` cannot do on this system, to be logged once at the start. `children`: of a thread, in /proc."""
    if libc is None:
        return ["processes that leave their session", "memory hidden from other processes", "dropped capabilities"]
    return [] if _can_keep_descendants(children) else ["processes that leave their session"]


def hide_memory(is_hidden: bool = True) -> None:
    """From other processes of this user, with environment and descriptors. A program that is started is not hidden."""
    _prctl(PR_SET_DUMPABLE, 0 if is_hidden else 1)


def enter(confinement: Confinement) -> None:
    """From here on, for this process and all that it starts."""
    if not confinement.is_on:
        return
    if libc is not None:
        _keep_descendants()
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _drop_capabilities()
        hide_memory()
    _limit(confinement)


def begin_supervisor() -> None:
    """In the process above one command: the command's descendants stay below it, and are killed first for memory."""
    if libc is None:
        return
    _keep_descendants()
    hide_memory(False)  # the file below belongs to root while memory is hidden
    with suppress(OSError):  # a /proc that is mounted read-only
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(file, OOM_FIRST)
        finally:
            os.close(file)
    hide_memory()


def _keep_descendants() -> None:
    """What a command leaves behind becomes our child."""
    if _can_keep_descendants():
        _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _can_keep_descendants(children: str = CHILDREN) -> bool:
    """Some sandboxes stand in for a kernel that cannot."""
    assert libc is not None
    is_reaper = ctypes.c_int()
    knows = libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(is_reaper), 0, 0, 0) == 0
    return bool(knows) and os.path.exists(children.format(os.getpid()))  # noqa: PTH110 - no pathlib in the template


def kill_children(kept: Collection[int]) -> bool:
    """Those of this process (of its first thread, which has to be its only one) but for `kept`. Were there any?"""
    found = [pid for pid in _children() if pid not in kept]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _children() -> list[int]:
    try:
        file = os.open(CHILDREN.format(os.getpid()), os.O_RDONLY)
    except OSError:  # logged at the start
        return []
    try:
        text = b""
        while chunk := os.read(file, 65_536):
            text += chunk
        return [int(pid) for pid in text.split()]
    finally:
        os.close(file)


def limit_memory(limit: int) -> None:
    """RLIMIT_DATA, not RLIMIT_AS: address space that threads reserve and do not use must not count."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def memory_file(content: str) -> int:
    """A file that no directory has, for a credential: its descriptor, which programs inherit that are let to."""
    descriptor = os.memfd_create("credential", 0)
    os.fchmod(descriptor, 0o600)  # libpq reads no password file that others may read
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(content)
    return descriptor


def _limit(confinement: Confinement) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, wanted in (
        (resource.RLIMIT_FSIZE, confinement.file_bytes),
        (resource.RLIMIT_NOFILE, confinement.descriptors),
        (resource.RLIMIT_DATA, confinement.memory_bytes),
    ):
        _, hard = resource.getrlimit(kind)
        if wanted:
            allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(kind, (allowed, allowed))


def _drop_capabilities() -> None:
    """From all five sets. Without CAP_SETPCAP the bounding set stays, and gives nothing: see no_new_privs."""
    assert libc is not None
    for capability in DROPPED:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, sets = Header(CAPABILITY_VERSION_3, 0), (Sets * 2)()
    _checked(libc.capget(ctypes.byref(header), ctypes.byref(sets)), "capget")
    for capability in DROPPED:
        kept = ~(1 << capability % 32)
        capabilities = sets[capability // 32]
        capabilities.effective &= kept
        capabilities.permitted &= kept
        capabilities.inheritable &= kept  # and with it the ambient one
    _checked(libc.capset(ctypes.byref(header), ctypes.byref(sets)), "capset")


def _prctl(option: int, value: int) -> None:
    if libc is not None:
        _checked(libc.prctl(option, value, 0, 0, 0), f"prctl({option}, {value})")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

"""Restrictions on the process of a command: `NOETL_WORKER_ISOLATION=basic` (docs/security.md).

This module uses only the standard library: the template process (`python_template.py`), from which commands
are forked, loads it by path. That process is confined at its start, and each command inherits the restrictions at no
cost. Only Linux has all restrictions; other systems have only the resource limits.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import stat
import struct
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION_3 = 0x20080522
DROPPED = (19, 21, 38, 39)
"""The capabilities CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF. With any of them, root can read the memory
of other processes."""
SECCOMP = {"x86_64": 317, "aarch64": 277}
"""Machine -> number of the system call seccomp(2)."""


@dataclass(frozen=True)
class Calls:
    """Numbers of the system calls that the seccomp filter tests, for programs of one architecture (`kind`)."""

    kind: int
    """The AUDIT_ARCH_* value by which the kernel tells 64-bit programs from 32-bit programs on the same machine."""
    prlimit: int
    clone: int
    unshare: int
    setns: int
    refused: tuple[int, ...]
    """Refused calls: ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, add_key, request_key, keyctl,
    userfaultfd and the three calls of io_uring. On x86_64, three calls have a second number for x32 programs."""


CALLS = {
    "x86_64": (
        Calls(
            *(0xC000003E, 302, 56, 272, 308),
            refused=(101, 310, 311, 438, 521, 539, 540, 248, 249, 250, 323, 425, 426, 427),
        ),
        Calls(0x40000003, 340, 120, 310, 346, refused=(26, 347, 348, 438, 286, 287, 288, 374, 425, 426, 427)),
    ),
    "aarch64": (
        Calls(0xC00000B7, 261, 220, 97, 268, refused=(117, 270, 271, 438, 217, 218, 219, 282, 425, 426, 427)),
        Calls(0x40000028, 369, 120, 337, 375, refused=(26, 376, 377, 438, 309, 310, 311, 388, 425, 426, 427)),
    ),
}
CLONE3 = 435
"""Number of the system call clone3 on each machine. The flags of clone3 are in memory, which a filter cannot read. So
the filter answers ENOSYS unless namespaces are allowed, and C libraries use clone instead."""
CLONE_NEWUSER = 0x1000_0000
X32_BIT = 0x4000_0000
"""Bit that marks the call numbers of x32 programs. Their AUDIT_ARCH_* value is the same as for 64-bit programs."""
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4
"""Operation and flag of the call seccomp(2). Without the flag, kernels before 5.16 slow a filtered process down."""
LOAD, IS_EQUAL, HAS_BIT, CLEAR, END = 0x20, 0x15, 0x45, 0x54, 0x06
"""Operation codes of a seccomp filter program."""
NUMBER, KIND, FIRST, THIRD = 0, 4, 16, 32
"""Offsets in `struct seccomp_data`: call number, architecture, first and third argument."""
ALLOWED, ERROR = 0x7FFF_0000, 0x0005_0000
CREATE_RULESET, RESTRICT_SELF = 444, 446
"""Numbers of two Landlock system calls, which are the same on all machines."""
SCOPES_SINCE = 6
"""First version of Landlock (Linux 6.12) that can forbid signals to outside processes without also restricting files.
Restricting files would also forbid mounts, which a command needs to start a sandbox of its own."""
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2
FILES_SINCE = 2
"""First version of Landlock with usable rules for files. Version 1 cannot allow renaming a file into another
directory."""
ADD_RULE, PATH_BENEATH = 445, 1
TRUNCATE = 1 << 14
OF_FILES = (1 << 0) | (1 << 1) | (1 << 2) | TRUNCATE
"""The Landlock rights that apply to a file: execute, write, read, truncate. A rule for a file must not have any other
right."""
CHANGES = (1 << 1) | 0b11_1111_1111 << 4
"""The Landlock rights that change files or directories: write, remove and make."""
OOM_FIRST = b"1000"
CHILDREN = "/proc/self/task/{}/children"

libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if libc is not None:
    libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


@dataclass(frozen=True)
class Confinement:
    """The operator's settings to confine the processes of commands. A limit applies to one process; 0: the limit of the
    machine stays."""

    level: str = "off"
    file_bytes: int = 0
    descriptors: int = 0
    memory_bytes: int = 0
    processes: int = 0
    """Maximum number of processes and threads of all commands of the worker together. The limit works only if a cgroup
    can be made (`command_group.py`)."""
    allows_namespaces: bool = False
    duckdb_bytes: int = 0
    """Maximum memory of a `duckdb` command, in bytes."""
    closed: tuple[str, ...] = ()
    """Directories in which commands cannot change files, if the kernel has Landlock. Commands cannot create files in a
    parent of such a directory either. The paths have no symbolic links."""

    @property
    def is_on(self) -> bool:
        return self.level != "off"

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def of_text(text: str) -> Confinement:
        return Confinement(**json.loads(text))


UNCONFINED = Confinement()


def missing(children: str = CHILDREN) -> list[str]:
    """Return the protections of isolation level `basic` that this system lacks. The worker logs the list at its start.

    `children` is the file in /proc that lists the children of a process.
    """
    lacking = []
    if libc is None or not _can_keep_descendants(children):
        lacking.append("processes that leave their session")
    if libc is None:
        lacking += ["memory hidden from other processes", "dropped capabilities"]
    if libc is None or not _can_filter_calls():
        lacking += ["limits of other processes", "no tracing of processes", "denied system calls"]
    return lacking


def landlock_version() -> int:
    """Return the version of Landlock. A number below 1 means that this system has no Landlock, or does not permit its
    use."""
    return 0 if libc is None else int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def has_domains() -> bool:
    """Return True if Landlock can isolate the processes of a command (`Domain`). A command then cannot reach another
    process even before that process hides its memory."""
    return landlock_version() >= SCOPES_SINCE


def hide_memory(is_hidden: bool = True) -> None:
    """Hide this process's memory, environment and descriptors from other processes of the user. The effect ends when
    this process executes another program."""
    prctl(PR_SET_DUMPABLE, 0 if is_hidden else 1)


def enter(confinement: Confinement) -> None:
    """Confine this process and its future child processes by the settings in `confinement`."""
    if not confinement.is_on:
        return
    if libc is not None:
        _keep_descendants()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _drop_capabilities()
        hide_memory()
        if _can_filter_calls():
            _filter_calls(confinement.allows_namespaces)
    _limit(confinement)


def _can_filter_calls() -> bool:
    """Return True if the kernel supports seccomp filters with the flag that `_set_filter` uses. A supporting kernel
    answers EFAULT to a null pointer as filter."""
    return _set_filter(None) == errno.EFAULT


def _set_filter(program: bytes | None) -> int:
    """Set a seccomp filter for this process. `program` is a `struct sock_fprog`. Return 0 on success, else the error
    number."""
    assert libc is not None
    if (number := SECCOMP.get(_machine())) is None:
        return errno.ENOSYS
    is_refused = libc.syscall(number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, program) != 0
    return ctypes.get_errno() if is_refused else 0


def _machine() -> str:
    return os.uname().machine if sys.maxsize > 1 << 32 else ""


def _filter_calls(allows_namespaces: bool) -> None:
    steps = []
    for calls in CALLS[_machine()]:
        of_kind = filter_steps(calls, allows_namespaces)
        steps += [(LOAD, 0, 0, KIND), (IS_EQUAL, 0, len(of_kind), calls.kind), *of_kind]
    steps.append((END, 0, 0, ALLOWED))
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    _checked(-_set_filter(struct.pack("@HP", len(steps), ctypes.addressof(text))), "seccomp")


def filter_steps(calls: Calls, allows_namespaces: bool) -> list[tuple[int, int, int, int]]:
    """Return the seccomp filter steps for one architecture. They refuse calls by which a process could change other
    processes or the kernel.

    Without the filter, ptrace(2) could enter a new program before the program hides its memory. prlimit(2) could lower
    the limits of any process of the user, also the worker's, for good. So a process may change only its own limits, but
    read all limits. A user namespace would give a process every right inside the namespace.
    """
    tested = [(call, "refused") for call in calls.refused]
    if not allows_namespaces:
        tested += [(calls.setns, "refused"), (CLONE3, "unknown"), (calls.clone, "flags"), (calls.unshare, "flags")]
    lines = (  # label, operation, value, and the next labels: if the test holds, and if not
        ("", LOAD, NUMBER, "", ""),
        ("", CLEAR, ~X32_BIT & 0xFFFFFFFF, "", ""),
        *(("", IS_EQUAL, call, label, "") for call, label in tested),
        ("", IS_EQUAL, calls.prlimit, "limits", "allowed"),
        ("flags", LOAD, FIRST, "", ""),
        ("", HAS_BIT, CLONE_NEWUSER, "refused", "allowed"),
        ("limits", LOAD, FIRST, "", ""),
        ("", IS_EQUAL, 0, "allowed", ""),
        ("", LOAD, THIRD, "", ""),
        ("", IS_EQUAL, 0, "", "refused"),
        ("", LOAD, THIRD + 4, "", ""),
        ("", IS_EQUAL, 0, "allowed", "refused"),
        ("allowed", END, ALLOWED, "", ""),
        ("refused", END, ERROR | errno.EPERM, "", ""),
        ("unknown", END, ERROR | errno.ENOSYS, "", ""),
    )
    places = {label: place for place, (label, *_) in enumerate(lines) if label}
    return [
        (operation, places.get(true, place + 1) - place - 1, places.get(false, place + 1) - place - 1, value)
        for place, (_, operation, value, true, false) in enumerate(lines)
    ]


def go_on_at_the_parents_end() -> None:
    """Have the kernel send SIGCONT to this process when its parent ends. A command may have stopped this process by
    SIGSTOP. After SIGCONT, this process notices that the worker is gone, and ends its child processes."""
    prctl(PR_SET_PDEATHSIG, signal.SIGCONT)


def begin_supervisor() -> None:
    """Prepare this process to supervise one command: orphaned processes of the command become its children."""
    go_on_at_the_parents_end()
    if libc is not None:
        _keep_descendants()


class Domain:
    """The Landlock rules for the commands of one supervisor, the parent process that runs them one at a time. The rules
    do not restrict the supervisor itself.

    Each command is in a domain of its own. Processes in the domain cannot signal or trace a process outside. They
    cannot open such a process's memory, variables and descriptors in /proc. They cannot change files in the
    directories that the argument `closed` lists.
    """

    def __init__(self, is_wanted: bool = True, closed: tuple[str, ...] = ()) -> None:
        self.rules = -1
        """File descriptor of the Landlock rules; -1: nothing is restricted, as on a kernel without Landlock."""
        version = landlock_version() if is_wanted else 0
        scopes = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= SCOPES_SINCE else 0
        changes = CHANGES | (TRUNCATE if version >= 3 else 0) if closed and version >= FILES_SINCE else 0
        if scopes or changes:
            self.rules = call_landlock(CREATE_RULESET, struct.pack("=QQQ", changes, 0, scopes), 24, 0)
        if changes:
            allow_but(self.rules, "", closed, changes)

    def enter(self) -> None:
        """Put the current thread, and the processes that it starts from now on, into a new Landlock domain."""
        if self.rules >= 0:
            assert libc is not None
            _checked(libc.syscall(RESTRICT_SELF, self.rules, 0), "landlock_restrict_self")

    def spawn(self, start: Callable[[], int]) -> int:
        """Call `start` in a new Landlock domain, and return the id of the process that `start` has started.

        A thread can never leave a domain, so a short-lived thread enters the domain and calls `start`. Such a thread
        costs a seventh of the CPU of a fork. A command could send a signal to this thread. That would only end the
        command and the supervisor process that watches this command."""
        if self.rules < 0:
            return start()
        assert libc is not None
        started: list[int | Exception] = []

        def work(_: object) -> None:
            try:
                self.enter()
                started.append(start())
            except Exception as error:
                started.append(error)

        thread, routine = ctypes.c_void_p(), ctypes.CFUNCTYPE(None, ctypes.c_void_p)(work)
        if number := libc.pthread_create(ctypes.byref(thread), None, routine, None):
            raise OSError(number, os.strerror(number))
        libc.pthread_join(thread, None)
        [found] = started
        if isinstance(found, Exception):
            raise found
        return found


def allow_but(ruleset: int, path: str, hidden: tuple[str, ...], rights: int) -> None:
    """Allow a directory and its content in a Landlock ruleset, except the paths in `hidden`."""
    if any(f"{one}/".startswith(f"{path}/") for one in hidden):
        _allow_beside(ruleset, path or "/", hidden, rights)
    else:
        allow(ruleset, path, rights)


def _allow_beside(ruleset: int, directory: str, hidden: tuple[str, ...], rights: int) -> None:
    """Add Landlock rules for all entries of a directory except hidden paths. If this process may not list the
    directory, no entry is allowed."""
    with suppress(PermissionError):
        for entry in os.scandir(directory):
            if entry.is_symlink() or entry.path in hidden:  # the target of a link has its own rule
                continue
            if any(path.startswith(f"{entry.path}/") for path in hidden):
                _allow_beside(ruleset, entry.path, hidden, rights)
            else:
                allow(ruleset, entry.path, rights)


def allow(ruleset: int, path: str, rights: int, *, is_kept: bool = False) -> None:
    """Add a Landlock rule that allows a path, if it exists. With `is_kept` the path stays open: the kernel may replace
    an unused entry of /proc, and the rule would be lost."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("=Qi", rights if is_directory else rights & OF_FILES, descriptor)
        call_landlock(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
    finally:
        if not is_kept:
            os.close(descriptor)


def call_landlock(number: int, *arguments: int | bytes) -> int:
    assert libc is not None
    found: int = libc.syscall(number, *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock: {os.strerror(error)}")
    return found


class OomScore:
    """The OOM score of this process and of its forks: if memory runs out, the kernel kills high scores first. Create
    this object before the function `enter` confines the process.

    `enter` hides the memory of the process. The file with the score then belongs to root, so a fork cannot open
    the file. Instead, this process opens its file early and sets its own score before it forks; the fork inherits the
    score.
    """

    def __init__(self) -> None:
        self.file, self._own = -1, b""
        with suppress(OSError):  # another system, or a /proc that is mounted read-only
            self.file = os.open("/proc/self/oom_score_adj", os.O_RDWR)
            self._own = os.read(self.file, 16)

    def set_first(self) -> None:
        """Set the highest OOM score for this process; new forks inherit it. The kernel then kills these forks first if
        memory runs out. `set_back` restores the own score of this process."""
        self._set(OOM_FIRST)

    def set_back(self) -> None:
        self._set(self._own)

    def _set(self, score: bytes) -> None:
        if self.file >= 0:
            with suppress(OSError):
                os.write(self.file, score)


def _keep_descendants() -> None:
    """Make this process the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER), so that it can end them."""
    if _can_keep_descendants():
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def _can_keep_descendants(children: str = CHILDREN) -> bool:
    """Return True if orphaned descendants can become children of this process. Some sandboxes emulate a kernel without
    this feature."""
    assert libc is not None
    is_reaper = ctypes.c_int()
    knows = libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(is_reaper), 0, 0, 0) == 0
    return bool(knows) and os.path.exists(children.format(os.getpid()))  # noqa: PTH110 - no pathlib in the template


def kill_children(kept: Collection[int]) -> bool:
    """Kill the child processes of this process except those in `kept`. Return True if any was killed. This process must
    have only one thread."""
    found = [pid for pid in _children() if pid not in kept]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def _children() -> list[int]:
    try:
        with open(CHILDREN.format(os.getpid()), "rb", buffering=0) as file:  # noqa: PTH123 - as above
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a system without this file; logged at the worker's start
        return []


def limit_memory(limit: int) -> None:
    """Limit the memory of this process to `limit` bytes. RLIMIT_DATA is used, because RLIMIT_AS would count address
    space that threads only reserve."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def memory_file(content: str) -> int:
    """Write a credential to a file that exists only in memory. Return its descriptor, which the caller may let programs
    inherit."""
    descriptor = os.memfd_create("credential", 0)
    os.fchmod(descriptor, 0o600)  # libpq refuses a password file that others may read
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
    """Drop the capabilities in DROPPED from all five sets. The ambient set follows the inheritable set. A process
    without CAP_SETPCAP cannot change the bounding set, but with no_new_privs that set has no effect."""
    assert libc is not None
    for capability in DROPPED:
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _checked(libc.capget(header, sets), "capget")
    for capability in DROPPED:
        word, bit = divmod(capability, 32)
        for place in range(3 * word, 3 * word + 3):  # effective, permitted, inheritable
            sets[place] &= ~(1 << bit)
    _checked(libc.capset(header, sets), "capset")


def prctl(option: int, value: int) -> None:
    """Call prctl(2). Raises OSError if the kernel refuses the call. On systems other than Linux, do nothing."""
    if libc is not None:
        _checked(libc.prctl(option, value, 0, 0, 0), f"prctl({option}, {value})")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

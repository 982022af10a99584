"""The worker's environment out of its environment block, which every process of its user may read (/proc/PID/environ).

`noetl-worker run` writes its variables to a sealed file in memory and starts itself again with what the interpreter
needs alone; the new start reads that file first thing and closes it. From then on the variables are in `os.environ` as
ever: in the worker's memory, which nobody else may read. What it starts gets what it is handed.

A supervisor starts its workers with a socket in the file's place, since others may read the file of a process that has
not yet hidden its memory. It sends the variables to a worker that has, and says so.

Before anything else is imported, so that the second start costs a bare interpreter's: this module loads nothing that
an interpreter has not loaded by itself (json and typing alone cost as much as the interpreter).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, NoReturn

VARIABLE: Final = "NOETL_WORKER_SEALED_ENVIRONMENT"
"""The descriptor of the file or socket; in the new start alone, and gone once it is read."""
_MORE: Final = "NOETL_WORKER_ENVIRONMENT_KEPT"
_KEPT: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV"})
_KEPT_PREFIXES: Final = ("LC_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "COVERAGE_")
"""What the loader, the C library and the interpreter read before any code of ours runs."""
_END: Final = b"\0\0"
"""Of the variables: all of them have come."""


def is_handed_over() -> bool:
    """Whether this is a new start, which is to hide its memory and then to `take` its variables."""
    return VARIABLE in os.environ


def take() -> None:
    """Into `os.environ`; ends the process where the supervisor went before it had sent all."""
    descriptor = int(os.environ.pop(VARIABLE))
    content = b""
    try:
        if _is_socket(descriptor):
            os.write(descriptor, b"\0")
        else:
            os.lseek(descriptor, 0, os.SEEK_SET)
        while chunk := os.read(descriptor, 1 << 20):
            content += chunk
    except ConnectionError:
        content = b""
    os.close(descriptor)
    if not content.endswith(_END):
        sys.exit(0)
    pairs = [os.fsdecode(pair).partition("=") for pair in content.split(b"\0")]
    os.environ.update({name: value for name, _, value in pairs if name})


def _is_socket(descriptor: int) -> bool:
    import stat

    return stat.S_ISSOCK(os.fstat(descriptor).st_mode)


def begin(arguments: Sequence[str]) -> None:
    """The first thing of the command line, with its arguments; starts it again where that is due.

    Raises:
        OSError: the system has no such file, or refuses the start.
    """
    is_run = not arguments or arguments[0] == "run"
    is_off = os.environ.get("NOETL_WORKER_ISOLATION", "").strip().lower() == "off"
    if is_run and not is_off and sys.platform == "linux" and sys.executable:
        _renew(os.environ)


def content_of(environment: Mapping[str, str]) -> bytes:
    """What is handed over."""
    return b"\0".join(os.fsencode(f"{name}={value}") for name, value in environment.items()) + _END


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """What stays in the environment block."""
    return {name: value for name, value in environment.items() if _stays(name, environment.get(_MORE, ""))}


def _renew(environment: Mapping[str, str]) -> NoReturn:
    descriptor = _sealed(content_of(environment))
    block = {**kept(environment), VARIABLE: str(descriptor)}
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], block)
    finally:
        os.close(descriptor)


def _stays(name: str, more: str) -> bool:
    """`more` has names, comma-separated, and beginnings of names that end in `*`."""
    if name in _KEPT or name.startswith(_KEPT_PREFIXES):
        return True
    patterns = [pattern.strip() for pattern in more.split(",") if pattern.strip()]
    return any(name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns)


def _sealed(content: bytes) -> int:
    import fcntl

    descriptor = os.memfd_create("noetl-worker", os.MFD_ALLOW_SEALING)  # and so not closed by exec
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor

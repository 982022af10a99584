"""Removal of the worker's variables from its environment block. All processes of the same user may read that block.

`noetl-worker run` writes its variables to a sealed file in memory. Then it starts itself again with only the variables
that the interpreter needs. The restarted process first reads the sealed file and closes it. After that `os.environ` has
all variables as usual. They are only in the worker's memory, not in /proc/PID/environ, and no other process may read
that memory. A process that the worker starts gets only the variables that the worker passes to it.

A supervisor gives its workers a socket instead of a file. A new worker has not yet hidden its memory, and until then
other processes could read its file. So the supervisor sends the variables after the worker has reported that its memory
is hidden.

The restart comes before any other import, so it costs no more than the start of a bare interpreter. Therefore this
module imports only modules that the interpreter has already loaded (json and typing would double the cost).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, NoReturn

VARIABLE: Final = "NOETL_WORKER_SEALED_ENVIRONMENT"
"""Environment variable with the file descriptor from which the restarted process reads its other variables. `take`
removes this variable."""
_MORE: Final = "NOETL_WORKER_ENVIRONMENT_KEPT"
"""Name of the setting that lists more variables to keep in the environment block, besides those that the interpreter
needs. The block is readable in /proc/PID/environ; the worker keeps all other variables only in its memory."""
_VISIBLE: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV"})
_VISIBLE_PREFIXES: Final = ("LC_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "GLIBC_TUNABLES", "COVERAGE_")
"""Prefixes of variables that stay in the environment block, because the loader, the C library and the interpreter read
them before any code of ours runs."""
_END: Final = b"\0\0"
"""Bytes at the end of the variables that a process receives. If these bytes are missing, some variables are missing."""


def is_handed_over() -> bool:
    """Return True if this process was started without its environment variables. Such a process hides its memory and
    then receives its variables (`take`)."""
    return VARIABLE in os.environ


def take() -> None:
    """Read the variables that this process's predecessor or supervisor passed on, and put them into `os.environ`. End
    the process if the supervisor ended before it had sent all variables."""
    import stat

    descriptor = int(os.environ.pop(VARIABLE))
    content = b""
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
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


def begin(arguments: Sequence[str]) -> None:
    """Replace this process by a new start of the same program without most environment variables. The new process reads
    them from a sealed file. Do nothing unless this process is to run a worker on Linux with isolation on.

    Args:
        arguments: the command line's arguments.

    Raises:
        OSError: the system has no sealed files, or refuses the start.
    """
    is_run = not arguments or arguments[0] == "run"
    is_off = os.environ.get("NOETL_WORKER_ISOLATION", "").strip().lower() == "off"
    if is_run and not is_off and sys.platform == "linux" and sys.executable:
        _renew(os.environ)


def pack_variables(environment: Mapping[str, str]) -> bytes:
    """Return the bytes from which a new process reads its environment variables: all variables and the end mark."""
    return b"\0".join(os.fsencode(f"{name}={value}") for name, value in environment.items()) + _END


def visible(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that stay in the environment block, where other processes can read them."""
    return {name: value for name, value in environment.items() if _stays(name, environment.get(_MORE, ""))}


def _renew(environment: Mapping[str, str]) -> NoReturn:
    descriptor = _sealed(pack_variables(environment))
    block = {**visible(environment), VARIABLE: str(descriptor)}
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], block)
    finally:
        os.close(descriptor)


def _stays(name: str, more: str) -> bool:
    """Return True if a variable stays in the environment block.

    Args:
        more: further names, separated by commas. A name that ends with `*` is a prefix.
    """
    if name in _VISIBLE or name.startswith(_VISIBLE_PREFIXES):
        return True
    patterns = [pattern.strip() for pattern in more.split(",") if pattern.strip()]
    return any(name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])) for pattern in patterns)


def _sealed(content: bytes) -> int:
    import fcntl

    descriptor = os.memfd_create("noetl-worker", os.MFD_ALLOW_SEALING)  # without MFD_CLOEXEC, so exec keeps it open
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

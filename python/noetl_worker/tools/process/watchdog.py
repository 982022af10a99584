"""Ends the programs of a worker that was killed: SIGKILL gives the worker itself no chance to.

A small process of its own session reads from a pipe which groups run; when the pipe ends without them having been
taken back, it kills them. One write of a few bytes at the start and at the end of a program, no thread. A worker that
is killed in the instant between the start and that write (some 0.1 ms) leaves the program running.

Weighed and not taken: PR_SET_PDEATHSIG is bound to the thread that started the program, is Linux only, reaches the
leader and not its group, and needs code between fork and exec, which costs the fast way of starting (vfork).
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Final

__all__ = ["Watchdog", "watchdog"]

_PROGRAM: Final = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
groups, rest = set(), b""
while True:
    data = os.read(0, 65536)
    if not data:
        break
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""

_log = logging.getLogger(__name__)


class Watchdog:
    """The process and the pipe to it; started with the first group, and again when it has died.

    Args:
        end_s: how long it may take to end once its pipe is closed.
    """

    def __init__(self, end_s: float = 2.0) -> None:
        self._end_s = end_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._owner = -1
        self._is_broken = False
        self._groups: set[int] = set()

    def prepare(self) -> None:
        """Be there before a program is: a worker that is killed while the watchdog starts would leave it running."""
        if self._owner != os.getpid():  # the first time, or in a fork: the pipe there is the parent's
            self._groups = set()
            self._start()

    def guard(self, group: int) -> None:
        """Kill this process group when we die. Call it right after the start."""
        self.prepare()
        self._groups.add(group)
        self._write(b"+%d\n" % group)

    def release(self, group: int) -> None:
        """Forget it. Call it before its leader is reaped: afterwards the number may be another's."""
        self._groups.discard(group)
        if self._owner == os.getpid():
            self._write(b"-%d\n" % group)

    def close(self) -> None:
        """End the process; what is still guarded dies."""
        if self._owner != os.getpid():
            return
        self._hang_up()
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(self._end_s)
            except subprocess.TimeoutExpired:  # somebody has a copy of the pipe's end
                process.kill()
                process.wait()
                for group in self._groups:
                    with suppress(OSError):
                        os.killpg(group, signal.SIGKILL)
        self._owner = -1

    def _start(self) -> None:
        self._owner = os.getpid()
        theirs, mine = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            os.close(mine)
            if not self._is_broken:
                _log.warning("programs outlive a killed worker: their watchdog cannot be started: %s", error)
            self._is_broken = True
            return
        finally:
            os.close(theirs)
        os.set_blocking(mine, False)
        self._pipe = mine

    def _write(self, line: bytes) -> None:
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, line)
        except BlockingIOError:  # it is stopped, and thousands of lines wait: the worker must not
            _log.debug("the watchdog does not read")
        except OSError:  # it died: another one, and it hears of everything that runs
            self._hang_up()
            if self._process is not None:
                self._process.wait()
            self._start()
            with suppress(OSError):
                os.write(self._pipe, b"".join(b"+%d\n" % group for group in self._groups))

    def _hang_up(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


watchdog: Final = Watchdog()
"""This process's."""
atexit.register(watchdog.close)

"""Standard output that drops further text once the program that reads the pipe has ended, as after `| head -1`."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from noetl_worker.observability.terminal import safe_console

if TYPE_CHECKING:
    from rich.console import Console


class StandardOutput:
    """Standard output that ignores a closed pipe, so that a command goes on after its reader (`| head`) has ended."""

    def __init__(self) -> None:
        self._stream: Final = sys.stdout
        self._is_closed = False

    def console(self) -> Console:
        return safe_console(file=cast(TextIO, self))

    def write(self, text: str) -> int:
        self._do(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def exit_code(self, code: int) -> int:
        """Return `code`, or raise BrokenPipeError if the pipe was closed, so that the command ends silently."""
        if self._is_closed:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return code

    def _do(self, what: Any, *given: str) -> None:
        if self._is_closed:
            return
        try:
            what(*given)
        except BrokenPipeError:
            self._is_closed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

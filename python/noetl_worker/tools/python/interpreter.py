"""A template process that is started as an interpreter of its own (`python_template.py`)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from noetl_worker.errors import ToolError
from noetl_worker.tools.process import process
from noetl_worker.tools.process.command_group import remove_group
from noetl_worker.tools.process.confinement import Confinement

__all__ = ["Interpreter", "arguments"]

_SCRIPT: Final = str(Path(__file__).with_name("python_template.py"))
_OPTIONS: Final = ("-I", "-X", "utf8")


def arguments(interpreter: str, mode: str, descriptor: int, confinement: Confinement) -> list[str]:
    return [interpreter, *_OPTIONS, _SCRIPT, mode, str(descriptor), confinement.as_text()]


class Interpreter:
    """The process, once it is started."""

    def __init__(self, interpreter: str, confinement: Confinement) -> None:
        self._interpreter = interpreter
        self._confinement = confinement
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, control: int) -> None:
        """Raises ToolError: it cannot be started."""
        try:
            self._process = subprocess.Popen(
                arguments(self._interpreter, "serve", control, self._confinement),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=process.base_environment(),
                cwd="/",
                pass_fds=[control],
                start_new_session=True,
            )
        except OSError as error:
            raise ToolError(f"cannot start the interpreter {self._interpreter!r}: {error}", kind="process") from error

    def end(self, seconds: float) -> None:
        """`seconds`: how long it may take to end by itself, with all that it has started: its control socket is
        closed."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._confinement.processes:
                remove_group(os.getpid())

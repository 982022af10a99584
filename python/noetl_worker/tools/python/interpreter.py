"""Interpreters for Python code: the worker's own, and interpreters that steps name. Each may have a template process
(`python_template.py`), a warm process from which commands are forked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.process import process
from noetl_worker.tools.process.command_group import remove_group
from noetl_worker.tools.process.confinement import Confinement

_SCRIPT: Final = str(Path(__file__).with_name("python_template.py"))
_OPTIONS: Final = ("-I", "-X", "utf8")
_PYTHONS: Final = "NOETL_WORKER_PYTHONS"
_CHANNEL: Final = 3
_NAME: Final = re.compile(r"python3(\.(9|[1-9]\d))?")
"""Pattern of program names of CPython 3.9 and newer, except free-threaded builds (`python3.13t`)."""
_STICKY: Final = 0o1000
_WRITABLE_BY_OTHERS: Final = 0o022


def allowed(given: str, settings: ToolSettings, *, is_confined: bool) -> str:
    """Return the path of the interpreter that a step names, if the operator allows it.

    Symbolic links in the directory's path are resolved. An interpreter started through such a link could find another
    virtual environment than the allowed environment.

    Raises:
        ConfigurationError: the operator has not allowed this interpreter.
    """
    found, own = _placed(shutil.which(given) or given), _placed(sys.executable)
    if found.parent == own.parent and found.resolve() == own.resolve():
        return sys.executable
    named = [name for name in settings.pythons.split(os.pathsep) if name]
    is_any = "*" in named or not (named or is_confined)
    if is_any or any(found == _placed(name) or found.parent == Path(name, "bin").resolve() for name in named):
        return str(found)
    raise ConfigurationError(
        f"python: this worker does not allow the interpreter {given!r}: ask the operator to name it in {_PYTHONS}"
    )


def _placed(interpreter: str) -> Path:
    """Resolve symbolic links in the path of the interpreter's directory, but keep the file name. In a virtual
    environment the file itself is a link, and its path tells the interpreter which environment to use."""
    path = Path(interpreter)
    return path.parent.resolve() / path.name


def template_program(interpreter: str) -> tuple[str, int, int] | None:
    """Return the path of the program to start as an interpreter's template process. Return also the program's inode and
    modification time in nanoseconds, which show a replaced program. Return None if no program is safe to use.

    A template process starts unconfined, and confines itself before it forks commands. So only root and the owner of
    the worker's environment may have write access to the program. Otherwise a command could replace the program. The
    packages of a virtual environment are not checked, because only the command's own process loads them.
    """
    with suppress(OSError, RuntimeError):  # RuntimeError: links in a circle, up to Python 3.12
        base = Path(interpreter).resolve(strict=True)
        keepers = {0, Path(sys.prefix).stat().st_uid}
        if _NAME.fullmatch(base.name) and all(_is_kept_by(keepers, path) for path in (base, *base.parents)):
            found = base.stat()
            return str(base), found.st_ino, found.st_mtime_ns
    return None


def _is_kept_by(keepers: set[int], path: Path) -> bool:
    found = path.stat()
    is_shared = found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & _STICKY
    return found.st_uid in keepers and not is_shared


def started_once(interpreter: str, confinement: Confinement) -> dict[str, JsonValue]:
    """Return the message that makes a template process start another interpreter for a single command. The command's
    own request follows on the socket."""
    return {
        "program": interpreter,
        "argv": [interpreter, *_OPTIONS, _SCRIPT, "once", str(_CHANNEL), confinement.level],
        "env": dict(process.base_environment()),
        "cwd": "/",
        "channel": _CHANNEL,
    }


class TemplateProcess:
    """A template process that is started as a separate program. It forks the processes of commands.

    Args:
        serving: module whose `prepare` the template calls and whose `run_command` runs the commands; empty: commands
            are Python code.
        interpreter: path of the Python interpreter that runs the template process. If it is not the worker's own, the
            template process loads no packages; each command loads its own packages.
    """

    def __init__(self, confinement: Confinement, serving: str = "", interpreter: str = sys.executable) -> None:
        self._confinement = confinement
        self._interpreter = interpreter
        self._options = _OPTIONS if interpreter == sys.executable else (*_OPTIONS, "-S")
        self._serving = [serving, json.dumps([path for path in sys.path if path])] if serving else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, control: int) -> None:
        """Start the template process, with `control` as its control socket. Raises ToolError if the program cannot be
        started."""
        try:
            self._process = subprocess.Popen(
                [
                    self._interpreter,
                    *self._options,
                    _SCRIPT,
                    "serve",
                    str(control),
                    self._confinement.as_text(),
                    *self._serving,
                ],
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
        """Wait until the template process has ended, with all processes below it. The caller must first close the
        control socket. After `seconds`, kill the template."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._confinement.processes:
                remove_group(os.getpid())

"""Warm template processes of other interpreters than the worker's own, for `python` steps that name an interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from noetl_worker.errors import ResourceShortage
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.process import process
from noetl_worker.tools.python.interpreter import template_program
from noetl_worker.tools.python.python_runner import PythonRunner

MOST_WARM: Final = 4
"""Maximum number of warm template processes for interpreters other than the worker's own."""


class OtherInterpreters:
    """Runs code with the interpreter that a step names, in a fork of this interpreter's template process. All virtual
    environments of an interpreter share its template process.

    Args:
        own: runner of the worker's own interpreter. This runner also starts interpreters that have no template process.
    """

    def __init__(self, own: PythonRunner) -> None:
        self._own = own
        self._own_program = os.path.realpath(sys.executable)
        self._warm: dict[tuple[str, int, int], PythonRunner] = {}
        """Runners of other interpreters, by program (path, inode, time of change). The least recently used runner is
        first."""

    async def run(
        self, executable: str, request: Mapping[str, JsonValue], *, timeout_s: float | None, max_output_bytes: int
    ) -> process.Finished:
        """Run one command's code with the interpreter `executable`, and return the result after the process has ended.

        Args:
            executable: path of the interpreter that runs the code, possibly in a virtual environment.
        """
        limits: dict[str, Any] = {"timeout_s": timeout_s, "max_output_bytes": max_output_bytes}
        runner = self._runner(executable)
        if runner is not None:
            with suppress(ResourceShortage):  # the code has not begun; if this is no interpreter, the run below says so
                return await runner.run({**request, "executable": executable}, **limits)
        return await self._own.run(request, once=executable, **limits)

    def end(self) -> None:
        """End the template processes of the other interpreters."""
        for runner in self._warm.values():
            runner.end()
        self._warm.clear()

    def _runner(self, executable: str) -> PythonRunner | None:
        """Return the object that forks commands from a template process of this interpreter. Return None if the worker
        cannot start a template process with this interpreter, or if all MOST_WARM template processes are busy."""
        if os.path.realpath(executable) == self._own_program:
            return self._own
        program = template_program(executable)
        if program is None:
            return None
        runner = self._warm.pop(program, None) or self._another(program[0])
        if runner is not None:
            self._warm[program] = runner
        return runner

    def _another(self, program: str) -> PythonRunner | None:
        if len(self._warm) >= MOST_WARM:
            idle = next((one for one, runner in self._warm.items() if not runner.is_busy), None)
            if idle is None:
                return None
            self._warm.pop(idle).end()
        return self._own.for_interpreter(program)

"""Running the program uv. Like a user's command, uv is confined, gets no secrets of the worker, and has its own
directory."""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.kinds.python.packages.wanted import strip_login
from noetl_worker.tools.process import process
from noetl_worker.tools.process.live_output import watched

Run = Callable[..., Awaitable[process.Finished]]
"""Type of the function that starts a program and waits for its end (`PythonRunner.run_program`)."""
_LONGEST: Final = 2_000
_CAUSE: Final = re.compile(r"\n[ \t]*cause: ")
_OUT_OF_REACH: Final = re.compile(
    r"Request failed after|error sending request|HTTP status server error|operation timed out"
)
"""Messages by which uv reports that the package index does not answer. They are matched because uv has no exit code for
this failure."""


def uv_program() -> str | None:
    """Return the path of the program uv, or None if uv is not installed. The program in the worker's own environment
    (pip extra `packages`) wins over a program in PATH."""
    own = str(Path(sys.executable).parent)
    return shutil.which("uv", path=os.pathsep.join((own, process.base_environment()["PATH"])))


class Uv:
    """Runs the program uv to build one environment with Python packages.

    Args:
        run: starts a program.
        directory: the directory in which uv works, and which holds all that it fetches.
        config: path of uv's settings; empty: the settings of the user and the machine.
        mode: `wheels` to install only built packages (wheels), or `any` to allow source packages too.
        deadline: end of the command's time, by `time.monotonic`; None: no end.
    """

    def __init__(self, run: Run, directory: Path, config: str, mode: str, deadline: float | None) -> None:
        program = uv_program()
        if program is None:
            text = "packages need uv, which this worker lacks: pip install 'noetl-worker[packages]', or put uv on PATH"
            raise ConfigurationError(text)
        self._run, self._program, self._directory, self._deadline = run, program, directory, deadline
        self._mode = ["--only-binary", ":all:"] if mode == "wheels" else []
        (directory / "tmp").mkdir()
        (directory / "uv.toml").touch()  # the project that uv would look for in the directories above
        self._environment = {
            **process.base_environment("SSL_CERT_FILE", "SSL_CERT_DIR"),
            "TMPDIR": str(directory / "tmp"),
            "UV_CACHE_DIR": str(directory / "cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
            **({"UV_CONFIG_FILE": str(Path(config).absolute())} if config else {}),
        }

    async def resolve(self, requirements: tuple[str, ...], interpreter: str) -> Path:
        """Resolve requirements to exact versions. Return the path of the lock, a file that lists every needed package
        with version and hashes."""
        (self._directory / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        words = ("requirements.txt", "-o", "lock.txt", "--python", interpreter, *self._mode)
        await self._uv("resolved", "pip", "compile", *words, "--generate-hashes", "--no-header", "--no-annotate")
        return self._directory / "lock.txt"

    async def install(self, lock: str, interpreter: str) -> Path:
        """Install the packages that `lock` lists (the text of a lock file) into a new environment. Return the
        environment's directory."""
        (self._directory / "wanted.txt").write_text(lock, encoding="utf-8")
        built = self._directory / "environment"
        await self._uv("installed", "venv", "--no-project", "--relocatable", "--python", interpreter, str(built))
        words = ("--python", str(built / "bin/python"), "--no-deps", "--compile-bytecode", "-r", "wanted.txt")
        await self._uv("installed", "pip", "install", *words, *self._mode)
        return built

    async def _uv(self, done: str, *words: str) -> None:
        left_s = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        with watched(None):  # the error has what uv prints
            run = await self._run(
                self._program,
                ["uv", "--quiet", *words],
                env=self._environment,
                cwd=str(self._directory),
                timeout_s=left_s,
            )
        if run.timed_out:
            text = f"the packages were not {done} in the command's time: raise 'timeout', or prefetch them"
            raise ToolError(text, kind="timeout", retryable=True)
        if run.exit_code == 0:
            return
        if run.exit_code < 0:
            text = f"uv {process.exit_text(run.exit_code)}; the packages were not {done}"
            raise ToolError(text, kind="process", retryable=True)
        said = excerpt(_CAUSE.sub(": ", strip_login(run.stderr.strip())).removeprefix("error: "), _LONGEST)
        if _OUT_OF_REACH.search(said):
            text = f"the index of packages cannot be reached: {said}; check its URL, and the network to it"
            raise ToolError(text, kind="connection", retryable=True)
        raise ConfigurationError(f"the packages cannot be {done}: {said}", field="deps.packages", tool="python")

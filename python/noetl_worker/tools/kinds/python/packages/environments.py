"""The environment with a python step's packages: found in the store, or built there."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.kinds.python.packages.store import PACKAGES_DIR, PackageStore, disk_size, hashed_key
from noetl_worker.tools.kinds.python.packages.uv import Uv
from noetl_worker.tools.kinds.python.packages.wanted import WantedPackages, strip_login
from noetl_worker.tools.process import process
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.process.live_output import say, watched
from noetl_worker.tools.python.interpreter import allowed
from noetl_worker.tools.python.python_runner import PythonRunner

MODE: Final = "NOETL_WORKER_PYTHON_PACKAGES"
_ASK: Final = (
    "import json, platform, sys, sysconfig; print(json.dumps([platform.python_version(), sys.version, sys.base_prefix,"
    " sysconfig.get_platform(), *platform.libc_ver()]))"
)
_ASK_S: Final = 30.0
_PACKAGE: Final = re.compile(r"^[^\s#-]", re.MULTILINE)
_PASSWORD: Final = re.compile(r"://(?:[^/@\s:]*:)?([^/@\s]+)@")


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: str
    version: str
    identity: str
    """Text that identifies a compatible interpreter: two interpreters with equal texts can run each other's
    environments."""


class PackageEnvironments:
    """Finds or builds the environments with packages that the commands of one worker use."""

    def __init__(self, runner: PythonRunner, confinement: Confinement) -> None:
        self._runner = runner
        self._confinement = confinement
        self._known: dict[str, Interpreter] = {}

    @asynccontextmanager
    async def environment(
        self, wanted: WantedPackages, given: str | None, context: ToolContext, deadline: float | None
    ) -> AsyncIterator[str]:
        """Provide the path of an interpreter that has the packages `wanted`. The interpreter's environment is not
        removed during the `with` block.

        Args:
            wanted: the packages that the step asks for.
            given: the interpreter that the step names, or None.
            context: the command's context.
            deadline: end of the command's time, by `time.monotonic`, or None.

        Raises:
            ConfigurationError: NOETL_WORKER_PYTHON_PACKAGES does not allow the packages, no interpreter fits, or uv
                cannot resolve or install the packages.
            ToolError: kind `connection` if the index does not answer, `timeout` if the command's time is over.
        """
        settings = context.settings
        _check_mode(wanted, settings)
        interpreter = await self._interpreter(wanted, given, settings)
        store = PackageStore(Path(settings.packages_dir))
        store.check()
        recipe = hashed_key(settings.python_packages, interpreter.identity, *wanted.requirements)
        lock = store.lock_text(recipe)
        with store.in_use(_key(lock, recipe, interpreter, settings)) as path:
            if path is not None:
                yield str(path / "bin/python")
                return
        key = await self._build(store, recipe, wanted, interpreter, context, deadline)
        with store.in_use(key) as path:
            if path is None:
                text = "the installed packages were removed before the step used them: run the step again"
                raise ToolError(text, kind="process", retryable=True)
            yield str(path / "bin/python")

    async def _build(
        self,
        store: PackageStore,
        recipe: str,
        wanted: WantedPackages,
        interpreter: Interpreter,
        context: ToolContext,
        deadline: float | None,
    ) -> str:
        """Build the environment with the packages `wanted`, unless another worker has built the same environment
        meanwhile. Return the environment's key in the store."""
        settings = context.settings
        _keep_logins(settings.uv_config, context)
        async with AsyncExitStack() as turn:
            directory = await turn.enter_async_context(store.turn(deadline))
            builder = await turn.enter_async_context(self._builder(store))
            uv = Uv(builder.run_program, directory, settings.uv_config, settings.python_packages, deadline)
            lock = store.lock_text(recipe)
            if lock is None:
                store.put_lock(recipe, await uv.resolve(wanted.requirements, interpreter.path))
                lock = store.lock_text(recipe)
            key = _key(lock, recipe, interpreter, settings)
            with store.in_use(key) as path:
                if path is not None:
                    return key
            number = len(_PACKAGE.findall(lock or ""))
            say("packages", f"installing {number} package{'' if number == 1 else 's'}")
            context.logger.info("packages_installing", packages=number, requirements=list(wanted.shown))
            built = await uv.install(lock or "", interpreter.path)
            size = await finished_off_loop(partial(disk_size, built))
            store.put(key, built, wanted.shown, interpreter.version, number, size)
            removed = await finished_off_loop(partial(store.make_room, settings.packages_mb << 20, key))
            if removed:
                context.logger.info("packages_removed", environments=len(removed))
        return key

    @asynccontextmanager
    async def _builder(self, store: PackageStore) -> AsyncIterator[PythonRunner]:
        """Provide the PythonRunner that starts uv. uv may write into its build directory, but not into the rest of the
        store."""
        if not self._confinement.closed:
            yield self._runner
            return
        builder = PythonRunner(confinement=replace(self._confinement, closed=store.complete))
        try:
            yield builder
        finally:
            await builder.aclose()

    # ── interpreters ──

    async def _interpreter(self, wanted: WantedPackages, given: str | None, settings: ToolSettings) -> Interpreter:
        if given:
            candidates = iter([allowed(given, settings, is_confined=self._confinement.is_on)])
        else:
            candidates = _candidates(settings, is_confined=self._confinement.is_on)
        for path in candidates:
            found = self._known.get(path) or await self._inspected(path)
            if found is not None and wanted.is_for(found.version):
                return found
        version = f"python {wanted.python or 3}"
        if given:
            text = f"{given!r} is no {version}; name another one, or leave `python` out"
        else:
            text = f"this worker has no interpreter for {version}; ask the operator to add one to NOETL_WORKER_PYTHONS"
        raise ConfigurationError(text, field="deps.python", tool="python")

    async def _inspected(self, path: str) -> Interpreter | None:
        """Run a program to find out its Python version. Return None if the program is no Python interpreter."""
        env = process.base_environment()
        with watched(None):
            run = await self._runner.run_program(path, [path, "-I", "-c", _ASK], env=env, cwd="/", timeout_s=_ASK_S)
        try:
            version, *rest = map(str, json.loads(run.stdout))
        except ValueError:
            return None
        found = self._known[path] = Interpreter(path, version, "\n".join([version, *rest]))
        return found


def _check_mode(wanted: WantedPackages, settings: ToolSettings) -> None:
    names = ", ".join(wanted.shown)
    if settings.python_packages == "off":
        text = f"the step needs {names}, and {MODE} is off: set it to 'wheels', or install them and give 'venv_path'"
        raise ConfigurationError(text, field="deps.packages", tool="python")
    if settings.python_packages == "wheels" and wanted.links:
        link = strip_login(wanted.links[0])
        text = f"{link!r} has an address of its own, which {MODE}=wheels does not allow; 'any' does"
        raise ConfigurationError(text, field="deps.packages", tool="python")
    if not settings.packages_dir:
        raise ConfigurationError(f"{PACKAGES_DIR} names no directory for packages: set it", tool="python")


def _key(lock: str | None, recipe: str, interpreter: Interpreter, settings: ToolSettings) -> str:
    """Return the key of an environment in the store: a hash of the lock (resolved versions), the interpreter, and the
    setting NOETL_WORKER_PYTHON_PACKAGES.

    `recipe` is the key of the lock, a hash of the step's requirements, the interpreter and the same setting. If `lock`
    is None, the versions are not resolved yet: return `recipe`. No environment in the store has this key, so the caller
    builds the environment.
    """
    return recipe if lock is None else hashed_key(lock, interpreter.identity, settings.python_packages)


def _candidates(settings: ToolSettings, *, is_confined: bool) -> Iterator[str]:
    yield sys.executable
    named = [name for name in settings.pythons.split(os.pathsep) if name]
    paths = (str(Path(name, "bin/python")) if Path(name).is_dir() else name for name in named if name != "*")
    yield from (path for path in paths if os.access(path, os.X_OK))
    if "*" in named or not (named or is_confined):
        yield from filter(None, (shutil.which(f"python3.{minor}") for minor in range(9, 30)))


def _keep_logins(config: str, context: ToolContext) -> None:
    """Register the passwords in the addresses of uv's settings file `config` as secrets."""
    if config:
        try:
            text = Path(config).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                f"UV_CONFIG_FILE={config!r} cannot be read: {error}; correct it", tool="python"
            ) from error
        for password in _PASSWORD.findall(text):
            context.secrets.keep(password)
            context.secrets.keep(unquote(password))

"""The engine of this process: Rust or Python functions that decode notifications, evaluate cases and redact secrets.

NOETL_WORKER_ENGINE chooses the engine when this module is imported.

`auto` (default) takes the Rust engine if it is installed, else the Python engine. `rust` without a Rust engine is an
error. All functions come from one engine, so that the two cannot mix.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import warnings
from typing import Final, cast

from noetl_worker import __version__
from noetl_worker.engine.protocol import CaseMatch, CompiledCases, Engine, PendingMatch
from noetl_worker.errors import EngineUnavailable, SettingsError

__all__ = [
    "ENGINE",
    "SOURCE_HASH",
    "CaseMatch",
    "CompiledCases",
    "PendingMatch",
    "compile_cases",
    "decide",
    "decode_notification",
    "evaluate",
    "find_marks",
    "fit_result",
    "load_engine",
    "redact_text",
    "require",
    "version_line",
]

VARIABLE: Final = "NOETL_WORKER_ENGINE"


def load_engine(choice: str) -> tuple[str, Engine]:
    """Import the Rust or the Python engine, as `choice` demands, and return the engine's name and module.

    Raises:
        SettingsError: `choice` is not `auto`, `rust` or `python`.
        EngineUnavailable: `rust` was chosen and is not installed; or, also for `auto`, the installed Rust engine has
            another version than the package.
    """
    if choice not in ("auto", "rust", "python"):
        raise SettingsError(VARIABLE, choice, "one of auto, rust, python")
    if choice == "python":
        return "python", _pure()
    try:
        core = importlib.import_module("noetl_worker._core")
    except ImportError as error:
        if choice == "rust":
            raise EngineUnavailable(
                f"{VARIABLE}=rust, but the Rust engine cannot be imported: {error}. {_fix()}"
            ) from error
        if sys.implementation.name == "cpython" and not _is_pure_by_choice():
            warnings.warn(
                f"noetl-worker runs on its Python engine: no Rust engine for {_platform()} ({error}). {_fix()} "
                f"Set {VARIABLE}=python to accept it without this warning.",
                RuntimeWarning,
                stacklevel=3,
            )
        return "python", _pure()
    found = getattr(core, "__version__", "unknown")
    if found != __version__:
        raise EngineUnavailable(
            f"the Rust engine is version {found}, the package is {__version__}: a mixed install. Reinstall with "
            f"`pip install --force-reinstall noetl-worker=={__version__}` or remove {core.__file__}"
        )
    return "rust", cast(Engine, core)


def require(choice: str) -> None:
    """Check that the setting NOETL_WORKER_ENGINE (`choice`) allows the engine that this process has imported.

    Raises:
        SettingsError: `choice` names another engine than the imported one.
    """
    if choice not in ("auto", ENGINE):
        advice = f"set auto or {ENGINE}: the {ENGINE} engine was imported before these settings were read"
        raise SettingsError(VARIABLE, choice, advice)


def _is_pure_by_choice() -> bool:
    """Return True if the package was built without a Rust engine on purpose (`NOETL_WORKER_BUILD=pure`)."""
    return os.path.exists(f"{os.path.dirname(__file__)}/pure_by_choice")  # noqa: PTH110, PTH120


def _pure() -> Engine:
    return cast(Engine, importlib.import_module("noetl_worker.engine.pure.lib"))


def _platform() -> str:
    return f"{sys.implementation.name} {platform.python_version()} on {platform.system()} {platform.machine()}"


def _fix() -> str:
    return "To build it in a clone, with Rust on PATH (https://rustup.rs): `NOETL_WORKER_BUILD=rust pip install .`."


_name, _module = load_engine(os.environ.get(VARIABLE, "auto") or "auto")

ENGINE: Final[str] = _name
"""Name of this process's engine: `rust` or `python`.

`--version`, the first log line, a metric and the worker's registration at the plane show the name.
"""

SOURCE_HASH: Final[str | None] = getattr(_module, "SOURCE_HASH", None)
"""Hash of the Rust sources from which the extension module was built; None if the Python engine is used."""

compile_cases = _module.compile_cases
decide = _module.decide
decode_notification = _module.decode_notification
evaluate = _module.evaluate
find_marks = _module.find_marks
fit_result = _module.fit_result
redact_text = _module.redact_text


def version_line() -> str:
    """Return the line of `--version`, with the versions of worker and Python and the name of the engine."""
    return f"noetl-worker {__version__} (engine: {ENGINE}, Python {sys.version.split()[0]})"

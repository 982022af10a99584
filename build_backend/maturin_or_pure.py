"""PEP 517 backend: maturin where the Rust engine can be built, else hatchling and a pure-Python wheel.

`NOETL_WORKER_BUILD` or `--config-settings engine=...` chooses: `auto` (default), `rust` (a failure is an error) or
`pure`. Auto builds the engine when there is a cargo on PATH and the interpreter is CPython, and says why if it cannot.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

MATURIN = "maturin>=1.9.4,<2"
VARIABLE = "NOETL_WORKER_BUILD"
SETTING = "engine"
BY_CHOICE = Path("python", "noetl_worker", "engine", "pure_by_choice")
"""In an install without a Rust engine that was asked for: it says nothing of that at run time."""
MODES = ("auto", "rust", "pure")

ConfigSettings = dict[str, Any] | None

# No prepare_metadata_for_build_wheel: maturin's runs cargo (and so the network), hatchling's would describe a wheel
# that maturin then builds. Frontends fall back to building the wheel, once.
__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]


def get_requires_for_build_sdist(config_settings: ConfigSettings = None) -> list[str]:
    """Nothing: an sdist is made without cargo, which maturin's own cannot do."""
    return []


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    return [] if _mode(config_settings) == "pure" else [MATURIN]


def get_requires_for_build_editable(config_settings: ConfigSettings = None) -> list[str]:
    # hatchling's editable wheel needs `editables`; it is also what auto falls back to.
    return ["editables>=0.5", *get_requires_for_build_wheel(config_settings)]


def build_sdist(sdist_directory: str, config_settings: ConfigSettings = None) -> str:
    return _built_with("hatchling.build", "build_sdist", sdist_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: str | None = None
) -> str:
    return _build("build_wheel", wheel_directory, config_settings)


def build_editable(
    wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: str | None = None
) -> str:
    return _build("build_editable", wheel_directory, config_settings)


def _mode(config_settings: ConfigSettings) -> str:
    """Return `rust`, `auto` (worth a try) or `pure`."""
    wanted = _wanted(config_settings)
    if wanted not in MODES:
        raise SystemExit(f"{VARIABLE} or the config setting {SETTING!r} is {wanted!r}; use one of {', '.join(MODES)}")
    if wanted == "auto" and (reason := _why_pure()):
        _say(f"{reason}: building the pure-Python wheel")
        return "pure"
    return wanted


def _wanted(config_settings: ConfigSettings) -> str:
    return str((config_settings or {}).get(SETTING) or os.environ.get(VARIABLE) or "auto")


def _why_pure() -> str | None:
    if platform.python_implementation() != "CPython":
        return f"{platform.python_implementation()} has no native build"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the free-threaded interpreter cannot load an abi3 extension"
    if shutil.which("cargo") is None:
        return "no cargo on PATH"
    return None


def _build(kind: str, wheel_directory: str, config_settings: ConfigSettings) -> str:
    mode = _mode(config_settings)
    BY_CHOICE.unlink(missing_ok=True)
    if _wanted(config_settings) == "pure":
        BY_CHOICE.touch()
    if mode != "pure":
        # Without these a missing toolchain is downloaded by surprise, and a missing registry is waited for.
        os.environ.setdefault("MATURIN_NO_INSTALL_RUST", "1")
        if mode == "auto":
            os.environ.setdefault("CARGO_NET_RETRY", "0")
        try:
            return _built_with("maturin", kind, wheel_directory, config_settings)
        # maturin reports a failed build by sys.exit(1).
        except (Exception, SystemExit) as error:
            if mode == "rust":
                raise
            _say(f"the Rust engine could not be built ({error!r}): building the pure-Python wheel")
    if kind == "build_editable":
        _drop_stale_extension()
    return _built_with("hatchling.build", kind, wheel_directory, config_settings)


def _built_with(backend: str, kind: str, directory: str, config_settings: ConfigSettings) -> str:
    """Call a backend, which is only imported where it is needed, without our own setting."""
    settings = {name: value for name, value in (config_settings or {}).items() if name != SETTING}
    return str(getattr(importlib.import_module(backend), kind)(directory, settings))


def _drop_stale_extension() -> None:
    """An editable pure install must not pick up the extension an earlier native one left in the tree."""
    for path in Path("python", "noetl_worker").glob("_core.*"):
        if path.suffix in (".so", ".pyd"):
            path.unlink()


def _say(text: str) -> None:
    print(f"noetl-worker: {text}", file=sys.stderr)

"""The one place that chooses an engine, and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest

import noetl_worker
from noetl_worker.engine import chosen as engine
from noetl_worker.engine.chosen import load_engine
from noetl_worker.errors import ConfigurationError, EnginePanic, EngineUnavailable
from noetl_worker.testing import arun_tool
from patience import PATIENCE_S

PACKAGE_ROOT = str(Path(noetl_worker.__file__).parents[1])


def in_fresh_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": PACKAGE_ROOT, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=PATIENCE_S
    )


def without_rust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "noetl_worker._core", None)


def with_rust(monkeypatch: pytest.MonkeyPatch, version: str) -> types.ModuleType:
    core = types.ModuleType("noetl_worker._core")
    core.__version__, core.__file__ = version, "/site/_core.abi3.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "noetl_worker._core", core)
    return core


def test_python_never_touches_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rust(monkeypatch)
    assert load_engine("python")[0] == "python"


def test_auto_takes_rust_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    core = with_rust(monkeypatch, noetl_worker.__version__)
    assert load_engine("auto") == ("rust", core)
    assert load_engine("rust") == ("rust", core)


def test_auto_is_quiet_where_the_install_was_built_pure_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_rust(monkeypatch)
    monkeypatch.setattr(sys.implementation, "name", "cpython")
    monkeypatch.setattr(engine, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "pure_by_choice").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_engine("auto")[0] == "python"


def test_auto_falls_back_with_one_warning_that_names_platform_and_fix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "__file__", str(tmp_path / "__init__.py"))
    without_rust(monkeypatch)
    monkeypatch.setattr(sys.implementation, "name", "cpython")
    with pytest.warns(RuntimeWarning, match=r"no Rust engine for cpython .* To build it in a clone") as seen:
        assert load_engine("auto")[0] == "python"
    assert len(seen) == 1


def test_auto_is_quiet_where_no_native_wheel_can_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rust(monkeypatch)
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_engine("auto")[0] == "python"


def test_rust_that_is_missing_is_an_error_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rust(monkeypatch)
    with pytest.raises(EngineUnavailable, match="NOETL_WORKER_ENGINE=rust, but") as caught:
        load_engine("rust")
    assert isinstance(caught.value.__cause__, ImportError)


async def test_rhai_of_a_pure_install_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rust(monkeypatch)
    with pytest.raises(ConfigurationError, match="needs the native build of noetl-worker"):
        await arun_tool("rhai", {"code": "1"})


@pytest.mark.parametrize("choice", ["auto", "rust"])
def test_mixed_install_is_an_error_that_names_both_versions(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    with_rust(monkeypatch, "0.0.9")
    with pytest.raises(EngineUnavailable, match=r"version 0\.0\.9, the package is " + noetl_worker.__version__):
        load_engine(choice)


def test_environment_chooses_for_the_process() -> None:
    code = (
        "from noetl_worker.engine import chosen as engine\n"
        "print(engine.ENGINE, engine.SOURCE_HASH, engine.decode_notification.__module__)"
    )
    answer = in_fresh_python(code, NOETL_WORKER_ENGINE="python")
    assert answer.stdout.split() == ["python", "None", "noetl_worker.engine.pure.envelope"], answer.stderr
    refused = in_fresh_python(code, NOETL_WORKER_ENGINE="quick")
    assert "NOETL_WORKER_ENGINE='quick' is not usable" in refused.stderr


@pytest.mark.rust
def test_rust_engine_is_really_loaded(engines: tuple[Any, Any]) -> None:
    answer = in_fresh_python(
        "from noetl_worker.engine import chosen as engine; print(engine.ENGINE)", NOETL_WORKER_ENGINE="rust"
    )
    assert answer.stdout.split() == ["rust"], answer.stderr


@pytest.mark.rust
def test_panic_is_an_exception_and_the_process_goes_on() -> None:
    pytest.importorskip("noetl_worker._core")
    code = (
        "from noetl_worker import _core, errors\n"
        "try: _core._panic('on purpose')\n"
        "except errors.EnginePanic as error: print(error)\n"
        "print(_core.decide(b'1', 'eq', b'1'))"
    )
    answer = in_fresh_python(code)
    assert answer.stdout.splitlines() == [
        "the Rust engine panicked: on purpose. The process goes on; please report this text",
        "True",
    ]
    assert issubclass(EnginePanic, Exception)

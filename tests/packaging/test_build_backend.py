"""The build backend's choices, with maturin and hatchling replaced; the real builds are `make wheels`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    path = ROOT / "build_backend" / "maturin_or_pure.py"
    spec = importlib.util.spec_from_file_location("maturin_or_pure", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("NOETL_WORKER_BUILD", raising=False)
    return module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, Any]]:
    """Record what reaches the two real backends, in a tree of its own."""
    (tmp_path / "python/noetl_worker/engine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    made: list[tuple[str, str, Any]] = []

    def fake(name: str) -> types.ModuleType:
        module = types.ModuleType(name)
        for kind in ("build_wheel", "build_editable", "build_sdist"):

            def build(_directory: str, settings: Any, kind: str = kind) -> str:
                made.append((name, kind, settings))
                return f"{name}.whl"

            setattr(module, kind, build)
        return module

    monkeypatch.setitem(sys.modules, "maturin", fake("maturin"))
    monkeypatch.setitem(sys.modules, "hatchling.build", fake("hatchling.build"))
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    monkeypatch.setattr(platform, "python_implementation", lambda: "CPython")
    return made


def test_auto_builds_rust_where_cargo_is(backend: Any, calls: list[Any]) -> None:
    assert backend.build_wheel("dist") == "maturin.whl"
    assert backend.build_editable("dist") == "maturin.whl"
    assert [(name, kind) for name, kind, _ in calls] == [("maturin", "build_wheel"), ("maturin", "build_editable")]


def test_auto_is_pure_without_cargo(
    backend: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    assert backend.build_wheel("dist") == "hatchling.build.whl"
    assert "no cargo on PATH" in capsys.readouterr().err
    assert backend.get_requires_for_build_wheel() == []


def failing(failure: BaseException) -> Any:
    def build(*_arguments: Any) -> str:
        raise failure

    return build


def test_auto_is_pure_off_cpython(backend: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    assert backend.build_wheel("dist") == "hatchling.build.whl"


@pytest.mark.parametrize("failure", [SystemExit(1), RuntimeError("no registry"), ImportError("no maturin")])
def test_auto_falls_back_and_says_why(
    backend: Any,
    calls: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
) -> None:
    monkeypatch.setattr(sys.modules["maturin"], "build_wheel", failing(failure))
    assert backend.build_wheel("dist") == "hatchling.build.whl"
    assert repr(failure) in capsys.readouterr().err


def test_pure_build_that_was_asked_for_is_marked_and_any_other_is_not(
    backend: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Path("python/noetl_worker/engine/pure_by_choice")
    backend.build_wheel("dist", {"engine": "pure"})
    assert mark.exists()
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    backend.build_wheel("dist")
    assert not mark.exists()


def test_rust_that_fails_is_an_error(backend: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["maturin"], "build_wheel", failing(SystemExit(1)))
    monkeypatch.setenv("NOETL_WORKER_BUILD", "rust")
    with pytest.raises(SystemExit):
        backend.build_wheel("dist")
    assert calls == []


def test_setting_wins_over_the_environment_and_is_not_passed_on(
    backend: Any, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_WORKER_BUILD", "rust")
    backend.build_wheel("dist", {"engine": "pure", "other": "1"})
    assert calls == [("hatchling.build", "build_wheel", {"other": "1"})]


def test_unknown_mode_is_an_error_that_names_the_modes(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOETL_WORKER_BUILD", "fast")
    with pytest.raises(SystemExit, match="use one of auto, rust, pure"):
        backend.get_requires_for_build_wheel()


def test_requirements_follow_the_mode(backend: Any, calls: list[Any]) -> None:
    assert backend.get_requires_for_build_sdist() == []
    assert backend.get_requires_for_build_wheel({"engine": "pure"}) == []
    assert backend.get_requires_for_build_wheel({"engine": "rust"}) == [backend.MATURIN]
    assert backend.get_requires_for_build_editable({"engine": "pure"}) == ["editables>=0.5"]


def test_pure_editable_install_drops_a_stale_extension(backend: Any, calls: list[Any], tmp_path: Path) -> None:
    package = tmp_path / "python" / "noetl_worker"
    (package / "_core.abi3.so").touch()
    (package / "_core.pyi").touch()
    backend.build_editable("dist", {"engine": "pure"})
    assert {path.name for path in package.iterdir()} == {"_core.pyi", "engine"}

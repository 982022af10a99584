"""Both engines for every test that asks for `engine`; the test's id says which one it ran on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

import noetl_worker.cases
import noetl_worker.engine.chosen
from engine.source_hash import source_hash
from noetl_worker.pipeline.command import cases

REQUIRE_RUST = "NOETL_WORKER_REQUIRE_RUST"


def load(name: str) -> Any:
    """Return an engine's module. A Rust engine that should be there and is not is a failure, not a skip."""
    if name == "python":
        return importlib.import_module("noetl_worker.engine.pure.lib")
    if os.environ.get(REQUIRE_RUST) == "1":
        core = importlib.import_module("noetl_worker._core")
    else:
        core = pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    expected = source_hash()
    if expected is not None and expected != core.SOURCE_HASH:
        pytest.fail(f"{core.__file__} was built from other sources; run `maturin develop` (make dev)", pytrace=False)
    return core


@pytest.fixture(scope="session", params=["python", pytest.param("rust", marks=pytest.mark.rust)])
def engine(request: pytest.FixtureRequest) -> Any:
    """Each engine in turn."""
    return load(request.param)


@pytest.fixture(scope="session")
def engines() -> tuple[Any, Any]:
    """The pure and the Rust engine, to compare them; the test needs the marker `rust`."""
    return load("python"), load("rust")


@pytest.fixture
def chosen(engine: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """`engine.chosen` as it is imported where the settings choose this engine, and so `cases`, `envelope` and
    `redaction`; no table is kept from another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(noetl_worker.engine.chosen.VARIABLE, request.node.callspec.params["engine"])
        import_again()
        assert noetl_worker.engine.chosen.decide is engine.decide
        yield engine
    import_again()


def import_again() -> None:
    for module in (noetl_worker.engine.chosen, cases, noetl_worker.cases):
        importlib.reload(module)

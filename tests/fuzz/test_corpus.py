"""Every call of the corpus, on both engines."""

from __future__ import annotations

import importlib

import pytest

from engine import hazards
from fuzz import corpus

KEPT = [pytest.param(call, id=name) for name, call in corpus.kept()]


@pytest.mark.rust
@pytest.mark.parametrize("call", KEPT)
def test_engines_agree_on_what_once_told_them_apart(call: hazards.Call) -> None:
    rust = pytest.importorskip("noetl_worker._core", reason="no Rust engine in this install")
    pure = importlib.import_module("noetl_worker.engine.pure")
    one, other = hazards.outcome(call, pure), hazards.outcome(call, rust)
    assert one == other or "regex_unsupported" in one

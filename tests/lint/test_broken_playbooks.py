"""Sixty playbooks with one mistake each, of the kind that people make: one finding, at its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("yaml")
from noetl_worker import engine
from noetl_worker.lint.codes import CODES, GROUPS
from noetl_worker.lint.inspector import inspect_text
from noetl_worker.tools.registry import Registry

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.yaml"))
REGISTRY = Registry(plugins=False)


def said(text: str, name: str) -> str | None:
    """What a comment at the top of a file says."""
    found = re.search(rf"^# {name}: (.+)$", text, re.MULTILINE)
    return found[1] if found is not None else None


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_mistake_is_the_one_finding_at_its_line(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if said(text, "needs") == "rhai" and engine.ENGINE != "rust":
        pytest.skip("rhai has its parser in the native build")
    names = said(text, "credentials")
    found = inspect_text(
        text,
        file.name,
        REGISTRY,
        plane=said(text, "plane"),
        credentials=names.split(", ") if names is not None else None,
    )
    assert [f"{one.code} {one.line}" for one in found] == [said(text, "expect")], found
    assert said(text, "plane") is None or found[0].severity == "error"


def test_there_are_sixty_and_five_of_each_group() -> None:
    codes = [(said(file.read_text(encoding="utf-8"), "expect") or "").split()[0] for file in BROKEN]
    assert len(BROKEN) >= 60
    assert set(codes) == set(CODES)
    assert {group: sum(code.startswith(group) for code in codes) >= 5 for group in GROUPS} == dict.fromkeys(
        GROUPS, True
    )

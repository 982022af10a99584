"""docs/library.md: its examples run, and what they import is public."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MODULES = re.findall(r"^\| `(noetl_worker[\w.]*)` \|", PAGE, re.MULTILINE)


def title_of(block: str) -> str:
    """The heading a block stands under, and its place: an id that survives edits elsewhere."""
    heading = re.findall(r"^## (.+)$", PAGE[: PAGE.index(block)], re.MULTILINE)[-1]
    return f"{heading}-{BLOCKS.index(block)}"


@pytest.mark.parametrize("block", BLOCKS, ids=title_of)
def test_example_runs(block: str) -> None:
    lines_above = PAGE[: PAGE.index(block)].count("\n")  # so that a traceback names the page's own line
    exec(compile("\n" * lines_above + block, "docs/library.md", "exec"), {"__name__": "library_example"})


@pytest.mark.parametrize("name", MODULES)
def test_named_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert [one for one in module.__all__ if not hasattr(module, one)] == []


def test_examples_import_only_what_is_public() -> None:
    taken = [
        (node.module, alias.name)
        for block in BLOCKS
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("noetl_worker.")
        for alias in node.names
    ]
    assert taken
    assert {module for module, _ in taken} <= set(MODULES)
    assert [one for one in taken if one[1] not in importlib.import_module(one[0]).__all__] == []


def test_every_module_of_the_table_has_an_example() -> None:
    assert len(MODULES) == 8
    assert [name for name in MODULES if name.rpartition(".")[2] not in "".join(BLOCKS)] == []

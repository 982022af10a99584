"""Names of log events: operators search for them. Two words at least; the CHANGELOG has the old ones."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import noetl_worker

PACKAGE = Path(noetl_worker.__file__).parent
CHANGELOG = Path(__file__, "../../../CHANGELOG.md").resolve()
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
ONE_WORD = {"cancelling", "deregistered", "draining", "outcome", "pulling", "registered", "stopped"}
"""The worker's own life, and its one line for each notification."""
NOT_WORDS = {"told", "tells", "whole", "ended", "looked", "noted"}


@cache
def names() -> frozenset[str]:
    """The first argument of each call of the package's logs."""
    calls = (
        node
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and node.args
    )
    first = [call.args[0] for call in calls if ast.unparse(call.func).startswith("log.")]
    found = {str(name.value) for name in first if isinstance(name, ast.Constant)}
    return frozenset(name for name in found if re.fullmatch(r"[a-z_]+", name))  # the development plane's are sentences


def test_names_are_a_noun_and_what_became_of_it() -> None:
    assert len(names()) > 60
    assert {name for name in names() if "_" not in name} <= ONE_WORD
    assert {name for name in names() if NOT_WORDS & set(name.split("_"))} == set()


def test_changelog_has_the_old_names_and_the_new_ones() -> None:
    table = CHANGELOG.read_text(encoding="utf-8").partition("### Log events\n")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", table, re.MULTILINE)
    assert rows
    assert {new for _, new in rows} <= names()
    assert {old for old, _ in rows} & names() == set()

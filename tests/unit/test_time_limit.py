"""That no test depends on the machine's speed: what ends one that hangs (tests/time_limit.py) is the same for all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import loops

CLOCKS = frozenset({"monotonic", "perf_counter", "process_time", "thread_time"})
TESTS = Path(loops.__file__).parent


def reads_clock(node: ast.AST, names: frozenset[str] = frozenset()) -> bool:
    """Or has a name that was given what a clock said."""
    return any(
        (isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in CLOCKS)
        or (isinstance(one, ast.Name) and one.id in names)
        for one in ast.walk(node)
    )


def limits(tree: ast.AST) -> Iterator[ast.AST]:
    """Assertions that something took no longer than so many seconds, wherever they are made; and marks of a test."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [one for one in ast.walk(function) if isinstance(one, ast.Assign) and reads_clock(one.value)]
            names = frozenset(ast.unparse(target) for one in given for target in one.targets)
            for node in ast.walk(function):
                if isinstance(node, ast.Assert) and "HOLDS_TIMES" not in ast.unparse(node):
                    compared = [one for one in ast.walk(node) if isinstance(one, ast.Compare)]
                    below = [one.left for one in compared if isinstance(one.ops[0], ast.Lt | ast.LtE)]
                    yield from (node for left in below if reads_clock(left, names))
        elif isinstance(function, ast.Call) and ast.unparse(function.func) == "pytest.mark.timeout":
            yield from (function for limit in function.args if isinstance(limit, ast.Constant) and limit.value <= 300)


def test_no_assertion_holds_seconds_of_a_clock_and_no_test_has_less_time_than_all() -> None:
    """A figure is held where HOLDS_TIMES (tests/holds.py) says so, or by `measured` of the faults."""
    found = {
        f"{path.relative_to(TESTS)}:{node.lineno}": ast.unparse(node)  # type: ignore[attr-defined]
        for path in TESTS.rglob("*.py")
        if any(word in (text := path.read_text(encoding="utf-8")) for word in (*CLOCKS, "mark.timeout"))
        for node in limits(ast.parse(text))
    }
    assert found == {}

"""`type(x) is C` stands where it says something that `isinstance` does not, or where `make counts` shows the call.

Read from the syntax trees. Python counts `isinstance` as a call and `type` as none; a command's path has hundreds.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[2] / "python" / "noetl_worker"
_NUMBER: Final = "a number is asked for, and a bool is an int"
_COUNTED: Final = "on the way of each command: make counts shows isinstance"
_OTHERS: Final = "a subclass is something else: it says itself what its items are or how it is printed"
ASKED: Final = {
    "bridge/feed_claims.py": (1, _NUMBER),
    "bridge/record.py": (1, _NUMBER),
    "engine/pure/case.py": (2, _NUMBER),
    "engine/pure/condition.py": (1, "1, 1.0 and true are three different values"),
    "engine/pure/envelope.py": (2, _NUMBER),
    "engine/pure/redact.py": (1, _NUMBER),
    "pipeline/claim/claim.py": (3, _COUNTED),
    "pipeline/command/claimed_command.py": (1, _COUNTED),
    "pipeline/command/command.py": (5, f"{_COUNTED}; of an attempt, {_NUMBER}"),
    "pipeline/command/dispatch.py": (1, _COUNTED),
    "pipeline/delivery/in_flight.py": (4, _COUNTED),
    "pipeline/outbox/event_set.py": (1, _NUMBER),
    "pipeline/report/results.py": (1, _COUNTED),
    "remote/plane/client.py": (2, _COUNTED),
    "remote/plane/python/names.py": (1, _COUNTED),
    "remote/plane/python/rules.py": (8, _COUNTED),
    "remote/plane/python/store.py": (1, _COUNTED),
    "remote/transport/on_loop.py": (2, _COUNTED),
    "remote/transport/url_path.py": (1, _COUNTED),
    "text/json_text.py": (2, "a table by type"),
    "text/plain_values.py": (2, "a table by type"),
    "text/templates/filters.py": (2, _OTHERS),
    "text/templates/limits.py": (2, f"{_OTHERS}; {_NUMBER}"),
    "text/templates/sandbox.py": (3, _OTHERS),
    "text/templates/template.py": (1, _OTHERS),
}
"""Files that ask for an exact type, how often, and why."""


def asks(node: ast.AST) -> bool:
    """`type(value)` compared, but for the type of None, which has no other name."""
    sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
    calls = [one for one in sides if isinstance(one, ast.Call) and ast.unparse(one.func) == "type"]
    return any(ast.unparse(one) != "type(None)" for one in calls)


def test_exact_type_is_asked_for_only_where_that_says_more_or_is_counted() -> None:
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        if "type(" in (text := path.read_text(encoding="utf-8")):
            found[path.relative_to(PACKAGE).as_posix()] += sum(map(asks, ast.walk(ast.parse(text))))
    assert +found == {name: times for name, (times, _) in ASKED.items()}

"""An error of a config has its field, and nothing reads one out of a text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.fields import decode

PACKAGE = Path(__file__, "../../../python/noetl_worker").resolve()
ELSEWHERE = {
    "remote/jetstream/connection.py": "nats-py",
    "tools/kinds/nats/connections.py": "nats-py",
    "tools/kinds/nats/failures.py": "the server's words of a refused permission",
    "tools/kinds/duckdb/connection.py": "DuckDB",
    "tools/kinds/duckdb/statements.py": "DuckDB",
    "tools/kinds/postgres/connection.py": "libpq before a connection",
    "tools/kinds/postgres/errors.py": "libpq before a connection",
    "tools/process/shortage.py": "CPython",
    "tools/python/python_code.py": "CPython",
}
"""Files that read the text of an error -> whose it is: it has no code."""


def texts_of_errors(function: ast.AST) -> set[str]:
    """The names that a function gives to the text of an error."""
    return {
        target.id
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and is_text_of_error(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_text_of_error(expression: ast.AST, names: set[str]) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id in names)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "str"
            and isinstance(node.args[0], ast.Name)
            and node.args[0].id in ("error", "raised", "exc", "warning")
        )
        for node in ast.walk(expression)
    )


def places_where_a_text_is_searched(file: Path) -> Iterator[int]:
    for function in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        names = texts_of_errors(function)
        for node in ast.walk(function):
            is_search = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)
            if is_search and is_text_of_error(node.comparators[0], names):
                yield node.lineno


def test_no_text_of_an_error_of_ours_is_searched_for_a_word() -> None:
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if next(places_where_a_text_is_searched(file), None)
    }
    assert found == set(ELSEWHERE)


@dataclass(frozen=True)
class Picky:
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigurationError("give 1 or more", field="size", code="small")


def test_error_with_a_field_is_given_the_kind_of_its_tool() -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode("picky", Picky, {"size": 0}, {"size": 0})
    error = caught.value
    assert (str(error), error.field, error.tool, error.code) == ("picky: give 1 or more", "size", "picky", "small")
    outer = error.within("outer", field="inner", because="why")
    assert (str(outer), outer.field) == ("picky: give 1 or more (why)", "inner.size")


def test_error_of_one_text_stays_as_a_plug_in_wrote_it() -> None:
    error = ConfigurationError("echo: no", kind="auth", retryable=True, code="c")
    assert (str(error), error.field, error.kind, error.retryable, error.code) == ("echo: no", "", "auth", True, "c")


def test_suggestion_ends_the_text() -> None:
    assert str(ConfigurationError("no 'htp'", suggestion="http")) == "no 'htp'; did you mean 'http'?"

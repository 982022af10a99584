"""What the SQL tools share: the shape of their data, and how a failed statement is told.

data = {columns, rows, row_count, affected_rows, statements, statement_count} of the **last** statement; `statements`
has one line for each: {statement, row_count, affected_rows}. Column names stay for an empty result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.json_text import plain
from noetl_worker.models import JsonValue

__all__ = ["MAX_ROWS", "Batch", "preview", "script_of"]

MAX_ROWS: Final = 100_000
"""Rows kept of one statement; the rest is left out and marked, so that a result fits into memory."""
_PREVIEW: Final = 120


@dataclass
class Batch:
    """The statements of one command, as they are run."""

    as_objects: bool = True
    max_rows: int = MAX_ROWS
    statements: list[dict[str, JsonValue]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[JsonValue] = field(default_factory=list)
    truncated: bool = False

    def returned(self, statement: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A statement gave rows (at most `max_rows` + 1 of them)."""
        self.columns = _unique(columns)
        self.truncated = len(rows) > self.max_rows
        kept = [[plain(value) for value in row] for row in rows[: self.max_rows]]
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in kept] if self.as_objects else list(kept)
        self.statements.append({"statement": statement, "row_count": len(kept), "affected_rows": None})

    def changed(self, statement: str, affected: int | None) -> None:
        """A statement gave no rows; `affected` is None where the database does not count."""
        self.columns, self.rows, self.truncated = [], [], False
        self.statements.append({"statement": statement, "row_count": 0, "affected_rows": affected})

    def data(self) -> dict[str, JsonValue]:
        last = self.statements[-1]
        whole: dict[str, JsonValue] = {
            "columns": self.columns,
            "rows": self.rows,
            "row_count": last["row_count"],
            "affected_rows": last["affected_rows"],
            "statements": self.statements,
            "statement_count": len(self.statements),
        }
        if self.truncated:
            whole["truncated"] = True
        return whole


def _unique(names: Sequence[str]) -> list[str]:
    """`a, a` -> `a, a_2`: as object keys, equal names would lose a column."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def script_of(query: str | Sequence[str]) -> str:
    """One SQL text of a text or a list of statements."""
    if isinstance(query, str):
        return query
    return ";\n".join(part.strip().rstrip(";") for part in query if part.strip())


def preview(statement: str) -> str:
    """The first characters of a statement on one line, for messages."""
    line = " ".join(statement.split()).rstrip("; ")
    return line if len(line) <= _PREVIEW else line[: _PREVIEW - 1] + "…"

"""Code that all SQL tools share: the SQL text, the structure of the result's data, and the conversion to JSON.

The data of a result is {columns, rows, row_count, affected_rows, statements, statement_count}. The first four fields
describe the **last** statement. `statements` has {statement, row_count, affected_rows} for each statement. A result
without rows still has `columns`. `truncated: true` means that rows were left out.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import plain
from noetl_worker.tools.contract import ToolForm
from noetl_worker.tools.fields import excerpt, text_of_base64

MAX_ROWS: Final = 100_000
"""Default for the maximum number of rows in a result. Further rows are left out, so that the result fits into memory,
and the result is marked `truncated`."""
SPELLINGS: Final = {
    "command_b64": "query_b64",
    "commands_b64": "query_b64",
    "sql_b64": "query_b64",
    "parameters": "params",
}
"""Other spellings of field names that every SQL kind accepts (its `field_aliases`), each with the field's own name."""
_PREVIEW: Final = 120
_SAMPLE_ROWS: Final = 5
_MAX_INT64: Final = 2**63 - 1
_MIN_INT64: Final = -(2**63)


@dataclass(frozen=True, kw_only=True)  # no slots: kind postgres has another base with slots
class SqlFields:
    """Config fields that several SQL tool kinds share."""

    query_b64: str | list[str] | None = None
    """Base64 of the SQL as UTF-8 text. The SQL is not rendered, so `{{` is only text."""
    as_objects: bool = True
    """True: each row of the result is an object. False: each row is a list, in the order of `columns`."""
    max_rows: int = MAX_ROWS
    """Maximum number of rows kept of the last statement; more are left out and marked by `truncated`."""
    timeout: float | None = None
    """Maximum run time of all statements in seconds; absent: the command's remaining time."""


@dataclass
class Batch:
    """The SQL statements of one command and their results, recorded as the statements are run."""

    as_objects: bool = True
    max_rows: int = MAX_ROWS
    statements: list[dict[str, JsonValue]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rows: list[JsonValue] = field(default_factory=list)
    truncated: bool = False
    samples: list[list[JsonValue]] = field(default_factory=list)
    """First rows of each statement, as lists. A statement that returns no rows has one row: the number of changed rows,
    if the database counts them."""

    def returned(
        self,
        statement: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        first: Sequence[Sequence[Any]] | None = None,
        affected: int | None = None,
    ) -> None:
        """Record a statement that has returned rows.

        Args:
            rows: up to `max_rows` + 1 rows. The extra row is not kept: it only shows that rows were left out.
            first: the same rows, if the field `samples` (the first rows of each statement) shows their values in
                another form. None: `samples` shows them as in `rows`.
            affected: the database's count of affected rows, or None if the statement has no such count.
        """
        self.columns = _unique(columns)
        self.truncated = len(rows) > self.max_rows
        kept = [[json_form(value) for value in row] for row in rows[: self.max_rows]]
        shown = kept if first is None else first
        self.samples.append([[json_form(value) for value in row] for row in shown[:_SAMPLE_ROWS]])
        self.rows = [dict(zip(self.columns, row, strict=True)) for row in kept] if self.as_objects else list(kept)
        self.statements.append({"statement": statement, "row_count": len(kept), "affected_rows": affected})

    def changed(self, statement: str, affected: int | None) -> None:
        """Record a statement that has returned no rows. `affected` is the number of changed rows, or None if the
        database does not count them."""
        self.columns, self.rows, self.truncated = [], [], False
        self.samples.append([] if affected is None else [[affected]])
        self.statements.append({"statement": statement, "row_count": 0, "affected_rows": affected})

    def data(self, form: ToolForm | None = None) -> dict[str, JsonValue]:
        """Return the data of the result, with the rows of the last statement. On the Python plane, the `row_count` of a
        write is the number of changed rows."""
        last = self.statements[-1]
        is_write = form is not None and form.sql_has_message and not self.columns
        data: dict[str, JsonValue] = {
            "columns": self.columns,
            "rows": self.rows,
            "row_count": (last["affected_rows"] or 0) if is_write else last["row_count"],
            "affected_rows": last["affected_rows"],
            "statements": self.statements,
            "statement_count": len(self.statements),
        }
        if self.truncated:
            data["truncated"] = True
        return data


def _unique(names: Sequence[str]) -> list[str]:
    """Return distinct column names: `a, a` gives `a, a_2`. Rows become objects, and equal keys would lose a column."""
    found: dict[str, None] = {}
    last: dict[str, int] = {}
    for name in names:
        candidate, number = name, last.get(name, 1)
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found[candidate], last[name] = None, number
    return list(found)


# ── the text ────────────────────────────────────────────────────────────────────────────────────


def sql_text(query: str | Sequence[str] | None, encoded: str | Sequence[str] | None = None) -> str:
    """Return one SQL text from `query` (a text, or a list of statements) or from `query_b64`, its base64 form.

    Raises:
        ConfigurationError: both texts are missing or they differ, there is no statement, or `encoded` is not base64.
            Call this function in the `__post_init__` of a config model. The worker then refuses the config before the
            command is reported as started.
    """
    if query is None and encoded is None:
        raise ConfigurationError(
            "field 'query' (or command, commands, sql) is missing", field="query", reason="missing"
        )
    texts = []
    if query is not None:
        texts.append(_joined([query] if isinstance(query, str) else query))
    if encoded is not None:
        pieces = ["".join(piece.split()) for piece in ([encoded] if isinstance(encoded, str) else encoded)]
        texts.append(_joined([text_of_base64("query_b64", piece) for piece in pieces]))
    if len(set(texts)) > 1:
        raise ConfigurationError("'query' and 'query_b64' have different texts; keep one", field="query_b64")
    if not texts[0].strip():
        raise ConfigurationError("'query' has no statement", field="query")
    return texts[0]


def _joined(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    # The line break ends a `--` comment at the end of a part, which would swallow the next statement.
    return "\n;\n".join(part.strip().rstrip(";") for part in parts if part.strip())


def preview(statement: str) -> str:
    """Return the first characters of a statement on one line, for messages."""
    line = " ".join(statement.split()).rstrip("; ")
    return line if len(line) <= _PREVIEW else excerpt(line, _PREVIEW - 1) + "…"


def left_open(text: str, otherwise: str = "") -> ToolError:
    """Return the error for SQL that leaves a transaction open. The changes are lost, because closing the connection
    rolls the transaction back.

    `otherwise`: an alternative to COMMIT, which is added to the advice in the error text.
    """
    return ToolError(
        f"{preview(text)}: the SQL leaves a transaction open, which was rolled back: end it with COMMIT{otherwise}",
        kind="db_transaction",
    )


# ── values ──────────────────────────────────────────────────────────────────────────────────────


def json_form(value: Any) -> JsonValue:
    """Convert a database value to JSON. Only NULL becomes null.

    NaN and infinity become "NaN", "Infinity" and "-Infinity", as Postgres writes them into JSON. A time span becomes
    ISO 8601 text ("P1DT2H"). `json_text.plain` converts other values: Decimal and large integers to exact text, bytes
    to base64.
    """
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if _MIN_INT64 <= value <= _MAX_INT64 else str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return float(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _key(key): json_form(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_form(item) for item in value]
    return plain(value)


def _key(key: Any) -> str:
    """Return the key of a map as text, converted like a value: a date to ISO 8601, True to `true`."""
    form = json_form(key)
    return form if isinstance(form, str) else str(form).lower() if isinstance(form, bool) else str(form)


def _duration(span: datetime.timedelta) -> str:
    micros = round(span / datetime.timedelta(microseconds=1))
    sign, rest = ("-", -micros) if micros < 0 else ("", micros)
    seconds, fraction = divmod(rest, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    hours, minutes, seconds = seconds // 3600, seconds % 3600 // 60, seconds % 60
    part = f"{seconds}.{fraction:06d}".rstrip("0") if fraction else str(seconds)
    clock = "".join(f"{sign}{amount}{unit}" for amount, unit in ((hours, "H"), (minutes, "M")) if amount)
    clock += f"{sign}{part}S" if seconds or fraction else ""
    day = f"{sign}{days}D" if days else ""
    return f"P{day}T{clock}" if clock else f"P{day}" if day else "PT0S"

"""Exact values for the columns of a SELECT that DuckDB's Python library cannot return exactly.

The library returns Python's last date for `infinity` and Python's first date for `-infinity`. But a table may contain
these two dates too. The library also cuts nanoseconds off. So the worker adds text columns to a playbook's SELECT: an
added column has the values of one column of dates or nanoseconds as text.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.tools.sql import split as sql_split

_ENDLESS: Final = re.compile(r"DATE|TIMESTAMP(_S|_MS)?|TIMESTAMP WITH TIME ZONE")
_NANOSECONDS: Final = re.compile(r"(TIME|TIMESTAMP|TIMESTAMPTZ)_NS|TIMESTAMP_NS WITH TIME ZONE")
_FINE: Final = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d:\d\d\.\d{7,9})(?P<zone>[+-]\d\d(:\d\d)*)?"
)
_REMOTE_CALL: Final = re.compile(r"\w_(query|execute)\s*\(", re.IGNORECASE)
"""Pattern of a call that queries another database, such as `mysql_query(...)`. The worker sends no DESCRIBE for such a
SELECT, because DESCRIBE may already run the query on the other database."""
_JSON: Final = re.compile(r"JSON(\[\d*\])*")


@dataclass(frozen=True, slots=True)
class SelectWithTexts:
    """The SQL of a playbook's SELECT with added text columns (`text`), and the names of the playbook's own columns
    (`names`). An added column has one column's values as text, where DuckDB's Python library may return them
    inexactly."""

    text: str
    names: Sequence[str]
    beside: Sequence[int]
    """Indexes of the playbook's columns that the SELECT reads a second time, as text: DuckDB's Python library may
    return their values inexactly. The text columns come last, in the order of these indexes."""

    def rows(self, fetched: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Convert rows of the SELECT with added text columns to rows of the playbook's own SELECT. A value's text
        replaces the value if DuckDB's Python library returned the value inexactly."""
        count = len(self.names)
        rows = []
        for row in fetched:
            values = list(row[:count])
            for number, text in zip(self.beside, row[count:], strict=True):
                values[number] = _value(values[number], text)
            rows.append(values)
        return rows


def reading(duckdb: Any, connection: Any, statement: Any, params: Any = None) -> SelectWithTexts | None:
    """Return a parsed SELECT with an added text column for each column of dates or nanoseconds. DuckDB's Python library
    may return such values inexactly. Return None if the statement is no SELECT, needs no text columns, or queries
    another database."""
    if statement.type.name != "SELECT" or _REMOTE_CALL.search(sql_split.bare(statement.query)):
        return None
    text = next(iter(sql_split.statements(statement.query)), "")
    try:
        columns = connection.execute(f"DESCRIBE {text}", params or None).fetchall()
    except duckdb.Error:  # SHOW and similar; a mistake in the statement is reported when it is run
        return None
    beside, texts = [], []
    for number, (_, kind, *_) in enumerate(columns):
        place = f"#{number + 1}"
        if _NANOSECONDS.fullmatch(kind):
            texts.append(f"CAST({place} AS VARCHAR)")
        elif _ENDLESS.fullmatch(kind):
            texts.append(f"CASE WHEN isinf({place}) THEN CAST({place} AS VARCHAR) END")
        else:
            continue
        beside.append(number)
    if not beside:
        return None
    places = [f"#{number}" for number in range(1, len(columns) + 1)]
    select = f"SELECT {', '.join([*places, *texts])} FROM (\n{text}\n)"
    return SelectWithTexts(select, [str(column[0]) for column in columns], beside)


def _value(value: Any, text: str | None) -> Any:
    """Return a value from DuckDB, or the value as text if DuckDB's Python library returned the value inexactly. The
    library does so for infinities, and for times with nanoseconds. `text` is the same value as DuckDB writes it; None:
    the value is exact. The text of a time is returned in ISO 8601."""
    if text is None:
        return value
    match = _FINE.fullmatch(text)
    if match is None:
        is_exact = isinstance(value, (datetime.datetime, datetime.time)) and "infinity" not in text
        return value if is_exact else text
    zone = match["zone"] or ""
    zone += ":00" if len(zone) == len("+00") else ""
    return f"{match['date']}T{match['time']}{zone}" if match["date"] else f"{match['time']}{zone}"


def with_json(
    rows: Sequence[Sequence[Any]], types: Sequence[str], read_json: Callable[[str], Any] = json.loads
) -> Sequence[Sequence[Any]]:
    """Return the rows with the values of JSON columns parsed by `read_json`, also those in lists. `types` has DuckDB's
    type of each column."""
    wanted = [number for number, name in enumerate(types) if _JSON.fullmatch(name)]
    if not wanted:
        return rows
    read = [list(row) for row in rows]
    for row in read:
        for number in wanted:
            row[number] = _loaded(row[number], read_json)
    return read


def _loaded(value: Any, read_json: Callable[[str], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_loaded(item, read_json) for item in value]
    return None if value is None else read_json(value)

"""What a transfer does to its target, and what the targets share: names of columns and keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.kinds.transfer.ends import TransferTarget
from noetl_worker.tools.sql import sql


class JsonText(str):
    """JSON as the source's database has it. Parsed and written anew it would lose digits, equal keys and its null."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PostgresSession:
    """A session of a Postgres server: which server (by its start, in seconds) and the process that serves it."""

    server_started: str
    pid: int


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """`mode` is append, replace or upsert; `keys` are the columns given for an upsert.

    `source`: the session that reads the rows, of a Postgres source.
    """

    mode: str
    keys: list[str]
    target: TransferTarget
    source: PostgresSession | None = None

    def keys_of(self, primary_key: Sequence[str], columns: Sequence[str], actual: Sequence[str]) -> list[str]:
        """The key columns of an upsert, as the table spells them; [] for another mode.

        Raises:
            ConfigurationError: none given and no primary key, or one that the rows do not have.
        """
        if self.mode != "upsert":
            return []
        keys = matched(self.target.table, self.keys, actual) if self.keys else list(primary_key)
        if not keys:
            raise ConfigurationError(f"transfer: table {self.target.table!r} has no primary key; give 'key' for upsert")
        absent = [key for key in keys if key not in columns]
        if absent:
            raise ConfigurationError(f"transfer: the rows have no key column {', '.join(map(repr, absent))}")
        return keys


def check_keys(row: Sequence[Any], columns: Sequence[str], keys: Sequence[str]) -> None:
    """`row` as it is written: raises ToolError when it has NULL in a key column, for NULL equals no NULL."""
    for key in keys:
        if row[columns.index(key)] is None:
            raise ToolError(
                f"transfer: key column {key!r} is NULL in a row, which an upsert cannot find again: leave such rows "
                "out in the source, or give another 'key'",
                kind="db_constraint",
            )


class Writer:
    """An opened target, and what the targets share.

    `begin(columns, types, sample)` finds the table and starts the transaction; no columns: there will be no rows.
    `types` are DuckDB's names and `sample` is rows, for a table to be made. `write(rows)` takes a chunk. `commit()`
    gives what is reported beside the number of rows.
    """

    def __init__(self, plan: TransferPlan) -> None:
        self._plan = plan
        self._columns: list[str] = []
        """Of the rows, as the table spells them."""
        self._keys: list[str] = []

    def _match(self, columns: Sequence[str], actual: Sequence[str], primary_key: Sequence[str] = ()) -> None:
        """Raises ConfigurationError for rows that do not go into a table with the columns `actual`."""
        self._columns = matched(self._plan.target.table, columns, actual)
        self._keys = self._plan.keys_of(primary_key, self._columns, actual) if columns else []

    def _names(self) -> str:
        return ", ".join(map(identifier, self._columns))

    def _changes(self, rows: str) -> str:
        """What an upsert sets of a row that is there, after the one in `rows`: the columns that are no key.

        A key alone: touching the row makes it count as updated, and locks it like any other.
        """
        columns = [column for column in self._columns if column not in self._keys] or self._keys[:1]
        return ", ".join(f"{name} = {rows}.{name}" for name in map(identifier, columns))


def matched(table: str, columns: Sequence[str], actual: Sequence[str]) -> list[str]:
    """`columns` as the table spells them: exactly, else by letters alone.

    Raises:
        ConfigurationError: the table has no such column, or two of them.
    """
    found = []
    for name in columns:
        close = [column for column in actual if column.lower() == name.lower()]
        if name not in actual and len(close) != 1:
            problem = "has no column" if not close else "has several columns like"
            raise ConfigurationError(f"transfer: table {table!r} {problem} {name!r}; it has: {', '.join(actual)}")
        found.append(name if name in actual else close[0])
    if len(set(found)) < len(found):
        raise ConfigurationError(f"transfer: two source columns go to one column of {table!r}: {', '.join(found)}")
    return found


def identifier(name: str) -> str:
    """A name in double quotes, as each of the databases reads it."""
    return '"' + name.replace('"', '""') + '"'


def table_parts(name: str) -> list[str]:
    """`db.schema."odd.name"` -> its parts, without quotes."""
    parts, part, is_quoted, position = [], "", False, 0
    while position < len(name):
        char = name[position]
        if char == '"' and is_quoted and name[position + 1 : position + 2] == '"':
            part, position = part + '"', position + 1
        elif char == '"':
            is_quoted = not is_quoted
        elif char == "." and not is_quoted:
            parts.append(part)
            part = ""
        else:
            part += char
        position += 1
    return [*parts, part]


def json_text(value: Any) -> str:
    """A value as JSON; text that is a JSON object or array already stays as it is."""
    if isinstance(value, str) and not isinstance(value, JsonText) and value.lstrip()[:1] in ("{", "["):
        try:
            json.loads(value)
        except ValueError:
            return json.dumps(value)
        return value
    return _written(value)


def _written(value: Any) -> str:
    """A value as JSON, with the JSON texts in it as they are."""
    if isinstance(value, JsonText):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        # Keys by themselves: json_form makes text of a date or a number.
        keys = [next(iter(sql.json_form({key: None}))) for key in value]
        parts = (f"{_written(key)}: {_written(item)}" for key, item in zip(keys, value.values(), strict=True))
        return "{" + ", ".join(parts) + "}"
    return json.dumps(sql.json_form(value), ensure_ascii=False)


def without_json(value: Any) -> Any:
    """A value for a column that is not JSON: a JSON string is its text and null is NULL, other JSON stays as it is."""
    if not isinstance(value, JsonText):
        return value
    text = value.strip()
    # Not parsed: Python refuses a number of more than 4300 digits, which Postgres has.
    return None if text == "null" else json.loads(text) if text.startswith('"') else str(value)


def json_inside(value: JsonText, path: Sequence[str] = ()) -> Any:
    """What is at `path` of a JSON text: JSON texts again, a list of them for an array; None: nothing is there."""
    found = json.loads(value, parse_int=JsonText, parse_float=JsonText)
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    if path or not isinstance(found, list):
        return JsonText(_written(found))
    return _marked(found)


def _marked(value: Any) -> Any:
    return [_marked(item) for item in value] if isinstance(value, list) else JsonText(_written(value))

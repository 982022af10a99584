"""The plan of a transfer, and the code that all targets share: names of columns, keys and JSON text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.tools.kinds.transfer.ends import TransferTarget
from noetl_worker.tools.sql import sql


class JsonText(str):
    """JSON text as the source's database returned it. Parsing would lose digits, repeated keys and JSON's null."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PostgresSession:
    """Identity of the session that reads the rows of a Postgres source. A Postgres target uses it to find out whether
    this session also reads the target table.

    `server_started` is the server's start time and identifies the server; `pid` is the session's process.
    """

    server_started: str
    pid: int


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """The changes that a transfer makes to its target. `mode` is append, replace or upsert; `keys` are the key columns
    that the playbook gives for an upsert.

    `source` is the session that reads the rows of a Postgres source, and None for any other source.
    """

    mode: str
    keys: list[str]
    target: TransferTarget
    source: PostgresSession | None = None

    def upsert_keys(self, primary_key: Sequence[str], columns: Sequence[str], actual: Sequence[str]) -> list[str]:
        """Return the key columns of an upsert, as the table spells them, or [] for another mode.

        Raises:
            ConfigurationError: no key is given and there is no primary key, or the rows lack a key column.
        """
        if self.mode != "upsert":
            return []
        keys = matched(self.target.table, self.keys, actual) if self.keys else list(primary_key)
        if not keys:
            raise ConfigurationError(f"transfer: table {self.target.table!r} has no primary key; give 'key' for upsert")
        absent = [key for key in keys if key not in columns]
        if absent:
            raise ConfigurationError(f"transfer: the rows have no key column {', '.join(map(repr, absent))}; select it")
        return keys


def check_keys(row: Sequence[Any], columns: Sequence[str], keys: Sequence[str]) -> None:
    """Raise ToolError if `row` has NULL in a key column. An upsert could never find such a row again, because in SQL
    NULL does not equal NULL."""
    for key in keys:
        if row[columns.index(key)] is None:
            raise ToolError(
                f"transfer: key column {key!r} is NULL in a row, which an upsert cannot find again: leave such rows "
                "out in the source, or give another 'key'",
                kind="db_constraint",
            )


class Writer:
    """Base of the classes that write rows to an opened target.

    `begin(columns, types, sample)` finds the table and starts the transaction. Empty `columns` mean that no rows will
    come. `types` (DuckDB's names) and `sample` (some rows) are for a table that has to be created. `write(rows)`
    writes one chunk. `commit()` returns the result's fields besides the number of rows.
    """

    def __init__(self, plan: TransferPlan) -> None:
        self._plan = plan
        self._columns: list[str] = []
        """Columns of the rows, as the table spells them."""
        self._keys: list[str] = []

    def _match(self, columns: Sequence[str], actual: Sequence[str], primary_key: Sequence[str] = ()) -> None:
        """Match the rows' `columns` to `actual`, the table's columns. Store the table's spelling of these columns, and
        the key columns of an upsert. Raises ConfigurationError if a column does not fit."""
        self._columns = matched(self._plan.target.table, columns, actual)
        self._keys = self._plan.upsert_keys(primary_key, self._columns, actual) if columns else []

    def _names(self) -> str:
        return ", ".join(map(identifier, self._columns))

    def _changes(self, rows: str) -> str:
        """Return the SET list of an upsert's UPDATE. It sets each column that is not a key to the value in the new row,
        which the SQL calls `rows`.

        If all columns are keys, the list sets only the first key column. Then the database also counts and locks a row
        that did not change.
        """
        columns = [column for column in self._columns if column not in self._keys] or self._keys[:1]
        return ", ".join(f"{name} = {rows}.{name}" for name in map(identifier, columns))


def matched(table: str, columns: Sequence[str], actual: Sequence[str]) -> list[str]:
    """Return `columns` in the spelling of `actual`, the table's columns: the same name, or else the same name in
    another case.

    Raises:
        ConfigurationError: the table has no such column or several, or two of `columns` match one column of the table.
    """
    found = []
    for name in columns:
        close = [column for column in actual if column.lower() == name.lower()]
        if name not in actual and len(close) != 1:
            problem = "has no column" if not close else "has several columns like"
            raise ConfigurationError(f"transfer: table {table!r} {problem} {name!r}; it has: {', '.join(actual)}")
        found.append(name if name in actual else close[0])
    if len(set(found)) < len(found):
        text = f"transfer: two source columns go to one column of {table!r}: {', '.join(found)}"
        raise ConfigurationError(f"{text}; leave one out, or give 'mapping'")
    return found


def identifier(name: str) -> str:
    """Return a name in double quotes, in the form that every target database reads."""
    return '"' + name.replace('"', '""') + '"'


def table_parts(name: str) -> list[str]:
    """Split a table name at its dots: `db.schema."odd.name"` gives db, schema and odd.name. Quotes are removed."""
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
    """Return a value as JSON. Text that already is a JSON object or array stays as it is."""
    if isinstance(value, str) and not isinstance(value, JsonText) and value.lstrip()[:1] in ("{", "["):
        try:
            json.loads(value)
        except ValueError:
            return json.dumps(value)
        return value
    return _written(value)


def _written(value: Any) -> str:
    """Return a value as JSON. A `JsonText`, also inside a list or an object, is inserted unchanged."""
    if isinstance(value, JsonText):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        # Keys are converted one by one: json_form makes text of a date or a number.
        keys = [next(iter(sql.json_form({key: None}))) for key in value]
        parts = (f"{_written(key)}: {_written(item)}" for key, item in zip(keys, value.values(), strict=True))
        return "{" + ", ".join(parts) + "}"
    return json.dumps(sql.json_form(value), ensure_ascii=False)


def without_json(value: Any) -> Any:
    """Return a value for a column that is not JSON. A JSON string becomes its text, JSON's null becomes None (NULL);
    other JSON stays as it is."""
    if not isinstance(value, JsonText):
        return value
    text = value.strip()
    # A number is not parsed: Python refuses one of more than 4300 digits, which Postgres may have.
    return None if text == "null" else json.loads(text) if text.startswith('"') else str(value)


def json_inside(value: JsonText, path: Sequence[str] = ()) -> Any:
    """Return the value at `path` in a JSON text, as JSON text, or None if the path leads to no value. Without `path`,
    an array is returned as a list of JSON texts."""
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

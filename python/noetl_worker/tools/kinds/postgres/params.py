"""The values of a statement's placeholders, in the types that psycopg sends.

A JSON list can mean a Postgres array or a jsonb value. An empty array is written `{}` and an empty jsonb list `[]`;
jsonb would read `{}` as an object. So if a value is a list, the worker asks the server for the expected type. If the
server gives no type, a list with an object in it becomes jsonb. Any other list becomes an array.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final

from noetl_worker.tools.kinds.postgres.address import library
from noetl_worker.tools.kinds.postgres.rows import encoded
from noetl_worker.tools.sql import split as sql_split

_PLACE: Final = re.compile(r"%(?:%|(?:\((?P<name>[^()]+)\))?[sbt])")
_NUMBER: Final = re.compile(r"(?<![\w$])\$(\d+)")
_EXACT: Final = 2**53
"""Number up to which a float can hold every whole number exactly."""
_SAVEPOINT: Final = "noetl_parameters"


async def adapted(connection: Any, text: str, params: Any, *, is_numbered: bool) -> Any:
    """Convert `params`, the placeholder values of the statement `text` (a list or an object), to the types that psycopg
    sends."""
    values = dict(params) if isinstance(params, dict) else dict(enumerate(params))
    types: Mapping[Any, int] = {}
    if any(isinstance(value, list) for value in values.values()):
        types = await _expected(connection, text, values, is_numbered=is_numbered)
    converted = {key: _typed(value, types.get(key, 0)) for key, value in values.items()}
    return converted if isinstance(params, dict) else list(converted.values())


def unused_values(text: str, params: Sequence[Any]) -> list[int]:
    """Return the numbers (from 1) of the values for which a statement with `$1, $2` has no placeholder."""
    used = {int(number) for number in _NUMBER.findall(sql_split.bare(text))}
    return [number for number in range(1, len(params) + 1) if number not in used]


# ── the server's types ──────────────────────────────────────────────────────────────────────────


async def _expected(connection: Any, text: str, values: Mapping[Any, Any], *, is_numbered: bool) -> dict[Any, int]:
    """Return the OID of the type that the server expects for each value, by the value's key. Return {} if a value is
    missing or the server refuses the statement."""
    psycopg = library()
    numbered, keys = (text, list(values)) if is_numbered else _numbered(text)
    if any(key not in values for key in keys):
        return {}  # a value is missing: psycopg reports it better when the statement is run
    known = psycopg.adapt.Transformer(connection)
    # A list is sent as null and has no type yet; the types of the other values help the server to find it.
    plain = [None if isinstance(values[key], list) else _typed(values[key], 0) for key in keys]
    known.dump_sequence(plain, [psycopg.adapt.PyFormat.AUTO] * len(plain))
    in_transaction = connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    if in_transaction:  # a refusal here must not end the transaction before the statement runs
        await connection.execute(f"SAVEPOINT {_SAVEPOINT}")
    async with connection.lock:
        found = await connection.wait(_described(connection.pgconn, encoded(connection, numbered), known.types or ()))
    if in_transaction:
        await connection.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}; RELEASE SAVEPOINT {_SAVEPOINT}")
    return dict(zip(keys, found, strict=False))


def _numbered(text: str) -> tuple[str, list[Any]]:
    """Return the text with its placeholders `%s` or `%(name)s` rewritten as `$1, $2`. Also return the key of each
    placeholder's value."""
    keys: list[Any] = []

    def place(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        key = len(keys) if match["name"] is None else match["name"]
        if key not in keys:
            keys.append(key)
        return f"${keys.index(key) + 1}"

    return _PLACE.sub(place, text), keys


def _described(pgconn: Any, text: bytes, types: Sequence[int]) -> Generator[Any, Any, list[int]]:
    """Have the server parse the statement. Return the OIDs of the parameters' types, or [] if the server refuses the
    statement. The refusal is not reported here, because the server repeats the refusal when the statement runs."""
    from psycopg import generators

    pgconn.send_prepare(b"", text, list(types))
    (prepared,) = yield from generators.execute(pgconn)
    if prepared.status != library().pq.ExecStatus.COMMAND_OK:
        return []
    pgconn.send_describe_prepared(b"")
    (described,) = yield from generators.execute(pgconn)
    return [described.param_type(number) for number in range(described.nparams)]


# ── the values ──────────────────────────────────────────────────────────────────────────────────


def _typed(value: Any, oid: int) -> Any:
    from psycopg.types.json import Json, Jsonb

    if isinstance(value, dict):
        return Jsonb(value)
    if not isinstance(value, list):
        return value
    types = library().adapters.types
    json, jsonb = types["json"], types["jsonb"]
    if oid in (json.oid, jsonb.oid):
        return Json(value) if oid == json.oid else Jsonb(value)
    if oid in (json.array_oid, jsonb.array_oid):
        wrapped = Json if oid == json.array_oid else Jsonb
        return [None if element is None else wrapped(element) for element in value]
    if _has_object(value):
        return Jsonb(value)
    return unify_numbers(value)


def _has_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_object, value)))


def unify_numbers(value: list[Any]) -> list[Any]:
    """Return the list with mixed ints and floats converted to one type, because a Postgres array has only one type. The
    type is float, or Decimal if a float could not hold each int exactly."""
    numbers = _leaves(value)
    if {type(element) for element in numbers} - {type(None)} != {int, float}:
        return value
    is_exact = all(abs(element) <= _EXACT for element in numbers if isinstance(element, int))
    return [_with_numbers(element, float if is_exact else lambda leaf: decimal.Decimal(str(leaf))) for element in value]


def _leaves(value: Any) -> list[Any]:
    return [leaf for element in value for leaf in _leaves(element)] if isinstance(value, list) else [value]


def _with_numbers(value: Any, number: Any) -> Any:
    if isinstance(value, list):
        return [_with_numbers(element, number) for element in value]
    return None if value is None else number(value)

"""The matching of a command's cases (when/then) to the tool's result. The engine compares values, and this module
renders the templates in conditions.

differs-from-upstream: a string that consists only of `{{ expr }}` renders to a value with its own type (a number stays
a number). Templates see the tool's data (vectors C034, C059). A case that does not parse is reported, not dropped
silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from noetl_worker.engine import chosen as engine
from noetl_worker.engine.protocol import CompiledCases, PendingMatch
from noetl_worker.engine.pure.case import parse_action
from noetl_worker.errors import ConditionError, NoetlWorkerError
from noetl_worker.models.case import CaseDecision
from noetl_worker.models.wire import JsonValue
from noetl_worker.text import json_text

__all__ = ["compile_cases", "match_cases", "parse_action"]

CACHED_TABLES: Final = 256
MOST_CACHED_BYTES: Final = 16 * 1024
"""Largest size in bytes of a JSON list of cases whose compiled form is cached. All commands of a step have the same
cases, so the cache saves compiling. The JSON of all cached lists takes at most 4 MiB. The compiled lists take several
times as much memory."""


def match_cases(
    cases: Sequence[JsonValue] | bytes,
    variables: Mapping[str, JsonValue],
    data: JsonValue,
    render: Callable[[JsonValue], JsonValue],
) -> CaseDecision:
    """Return the first case whose conditions all hold.

    Args:
        cases: in playbook order, as `[{"when": [Condition], "then": CaseAction}]`: a Python list, or JSON bytes.
            Anything but a list counts as no cases.
        variables: values by name, for a condition whose left side is a variable's name (`left: count`). A left side
            like `result` or `result.rows` reads the tool's result from `data`.
        data: the tool's `data`, without status and error; None when the tool returned none.
        render: renders one side of a condition (a template, or a JSON value with templates) to a JSON value. Templates
            should see the tool's data as `result`. A side is rendered only when needed, the left side first.

    Returns:
        CaseDecision: `index` counts parsable cases only. The index and the action are absent when no case holds.
            `skipped` lists the cases that do not parse.

    Raises:
        ConditionError: a condition cannot be evaluated. The text, `case` and `condition` tell which condition. Codes:
            `not_a_number`, `not_numeric`, `invalid_regex`, `regex_unsupported`, `template`.

    Source: protocol/conditions.md#cases; vectors C001-C155, K01-K40. This function has no Rust counterpart.
    """
    table = compile_cases(cases)
    if len(table) == 0:
        return CaseDecision(skipped=table.skipped)
    scope = {name: variables[name] for name in table.variables if name in variables}
    outcome = table.match(_encoded(scope), _encoded(data) if table.reads_result else None)
    while outcome is not None and not isinstance(outcome, engine.CaseMatch):
        outcome = outcome.resume(_rendered(outcome, render))
    if outcome is None:
        return CaseDecision(skipped=table.skipped)
    return CaseDecision(outcome.index, outcome.action, table.skipped)


def _rendered(reached: PendingMatch, render: Callable[[JsonValue], JsonValue]) -> bytes:
    where = f"case {reached.case}, condition {reached.condition}"
    try:
        return _encoded(render(reached.template))
    except (NoetlWorkerError, TypeError, ValueError) as error:
        raise ConditionError(
            "template", f"{where}: {reached.side} side: {error}", case=reached.case, condition=reached.condition
        ) from error


def _encoded(value: JsonValue) -> bytes:
    """Return a value as compact JSON in which integers keep all digits. `json_text.dumps` would write a large integer
    as a string.

    A value without a JSON form (a date, a Decimal, NaN) is written in the same way as in events.
    """
    if json_text.orjson is not None:
        try:
            packed: bytes = json_text.orjson.dumps(value, json_text.plain)
            return packed
        except TypeError:  # an integer over 64 bits, a key that is not text, half a surrogate pair
            pass
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=json_text.plain)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        return json_text.dumps(value)


def compile_cases(cases: Sequence[JsonValue] | bytes) -> CompiledCases:
    """Return a list of cases in compiled form. The compiled form of a list of at most MOST_CACHED_BYTES is cached, so
    equal lists are compiled once.

    Args:
        cases: the cases (when/then) of a command, as a Python list or as JSON bytes.

    Raises:
        DocumentError: bytes that are not JSON.
    """
    data = cases if isinstance(cases, bytes) else _encoded(cases)
    return _cached_table(data) if len(data) <= MOST_CACHED_BYTES else engine.compile_cases(data)


@lru_cache(CACHED_TABLES)
def _cached_table(data: bytes) -> CompiledCases:
    return engine.compile_cases(data)

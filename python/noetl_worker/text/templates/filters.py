"""The filters of NoETL's templates (protocol/tasks.md#templates), and the conversion of values to text.

The Python plane's worker and the Rust plane's worker differ in some filters. The docstring of such a filter names the
worker that the filter follows. `tests/tools/test_template.py` tests each choice.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jinja2 import Environment
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.utils import pass_context, pass_environment
from markupsafe import escape as markup_escape

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import plain
from noetl_worker.text.templates.keys import distinct
from noetl_worker.text.templates.limits import current_budget

_FALSY_WORDS: Final = frozenset({"", "false", "0", "no", "none", "null", "off", "{}", "[]"})


def truthy(value: JsonValue) -> bool:
    """Return True if the value of a condition counts as true. A text is false if it is one of the planes' falsy words;
    for other values Python's rules hold.

    Args:
        value: any JSON value. Falsy texts, trimmed and in lower case, are: "" false 0 no none null off {} []
            (protocol/conditions.md#truth).
    """
    if isinstance(value, str):
        return value.strip().lower() not in _FALSY_WORDS
    return bool(value)


def to_text(value: Any) -> str:
    """Return a value as a template prints it: as in JSON, but a string has no quotes, and undefined is an empty text.

    differs-from-upstream: null prints `null`; NoETL's own Rust worker prints `none`, its Python worker `None`. Printed
    values end up in JSON bodies and SQL, which know only `null`, `true` and `false`.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Undefined):
        return str(value)
    if value is None or isinstance(value, (bool, dict, list, tuple)):
        return json.dumps(_printable(value), ensure_ascii=False)
    return str(value)


JSON_SCALARS: Final = frozenset({str, int, bool, type(None)})
"""Types of elements that need no conversion before their list is printed. Float is missing, since NaN has to become
null."""


def _printable(value: Any) -> Any:
    """Convert a value to plain JSON values, as `json_text.plain` does, with null for undefined."""
    if isinstance(value, Undefined):
        return None
    if type(value) in (list, tuple) and JSON_SCALARS.issuperset(map(type, value)):
        return value
    if type(value) is dict and JSON_SCALARS.issuperset(map(type, value.values())):
        return value if {str}.issuperset(map(type, value)) else {str(key): item for key, item in value.items()}
    if isinstance(value, Mapping):
        return {str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return plain(value)


def _number(value: Any, convert: Callable[[Any], Any], default: Any) -> Any:
    if value is None or isinstance(value, Undefined):
        return default
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _to_int(value: Any) -> int:
    try:
        return int(value)  # tried first, because a 64-bit id as text must keep every digit
    except ValueError:
        return int(float(value))


def _int(value: Any, default: Any = 0) -> Any:
    return _number(value, _to_int, default)


def _float(value: Any, default: Any = 0.0) -> Any:
    return _number(value, float, default)


def _default(value: Any, default: Any = "", boolean: bool = False) -> Any:
    """Return `default` in place of undefined and null, and if `boolean` is true also in place of each false value.
    NoETL's own Rust worker does the same. (NoETL's own Python worker keeps null.)"""
    if isinstance(value, Undefined) or value is None:
        return default
    return default if boolean and not value else value


def _tojson(value: Any, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else None
    return json.dumps(_printable(value), ensure_ascii=False, sort_keys=True, indent=indent, separators=separators)


def _fromjson(value: Any) -> Any:
    try:
        return json.loads(to_text(value))
    except ValueError:
        return None


def _length(value: Any) -> int:
    """Return the number of characters, elements or keys, or 0 for a scalar. (NoETL's own Rust
    worker counts UTF-8 bytes.)"""
    if value is None or isinstance(value, (bool, int, float)):
        return 0
    return len(value) if hasattr(value, "__len__") else sum(1 for _ in value)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    return to_text(value).replace(to_text(old), to_text(new), count)


def _split(value: Any, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    return to_text(value).split(separator, maxsplit)


@pass_environment
def _join(environment: Environment, value: Any, separator: Any = "", attribute: str | None = None) -> str:
    if value is None or isinstance(value, Undefined):
        return to_text(value) if isinstance(value, Undefined) else ""
    items = map(make_attrgetter(environment, attribute), value) if attribute else value
    texts, between = [to_text(item) for item in list(items)], to_text(separator)
    return between.join(texts)


@pass_environment
def _first(environment: Environment, value: Any) -> Any:
    return next(iter(value or ()), environment.undefined("the list is empty"))


@pass_environment
def _last(environment: Environment, value: Any) -> Any:
    items = list(value or ())
    return items[-1] if items else environment.undefined("the list is empty")


def _b64encode(value: Any) -> str:
    return base64.b64encode(to_text(value).encode()).decode()


def _b64decode(value: Any) -> str:
    try:
        return base64.b64decode(to_text(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(f"b64decode: {error}; give it base64 of a text in UTF-8") from error


def _keys(value: Any) -> list[Any]:
    return list(value or ())


def _values(value: Any) -> list[Any]:
    return list(value.values()) if value else []


def _items(value: Any) -> list[Any]:
    return [list(pair) for pair in value.items()] if value else []


@pass_environment
def _get(environment: Environment, value: Any, key: Any, default: Any = None) -> Any:
    found = environment.getitem(value, key)
    return default if isinstance(found, Undefined) else found


def _format(value: Any, *arguments: Any, **named: Any) -> str:
    """Return the format string `value` filled with the arguments by Python's operator `%`, as Jinja's `format` does."""
    return str(to_text(value) % (named or arguments))


@pass_environment
def _unique(
    environment: Environment, value: Any, case_sensitive: bool = False, attribute: str | None = None
) -> Iterator[Any]:
    key_of, seen = make_attrgetter(environment, attribute, postprocess=None if case_sensitive else _lower), set()
    for item in value:
        key = distinct(key_of(item))
        if key not in seen:
            seen.add(key)
            yield item


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


@pass_context
def _sum(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    """Add up elements as Jinja's `sum` does, but lists faster. Jinja copies the sum for each list; this filter extends
    one list."""
    items = value if attribute is None else map(make_attrgetter(context.environment, attribute), value)
    if not isinstance(start, (list, tuple)):
        return sum(items, start)
    kind, made, budget = type(start), list(start), current_budget(context)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"sum: cannot add {type(item).__name__} to {kind.__name__}")
        budget.charge(1 + len(item) // 8, 8 * len(item))
        made.extend(item)
    return kind(made)


def _escape(value: Any) -> str:
    """Return HTML-escaped text as a plain str. Jinja's Markup would escape every text added to it later."""
    return str(markup_escape(to_text(value)))


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "int": _int,
    "float": _float,
    "default": _default,
    "d": _default,
    "tojson": _tojson,
    "fromjson": _fromjson,
    "length": _length,
    "count": _length,
    "len": _length,
    "string": to_text,
    "bool": truthy,
    "upper": lambda value: to_text(value).upper(),
    "lower": lambda value: to_text(value).lower(),
    "trim": lambda value, chars=None: to_text(value).strip(chars),
    "replace": _replace,
    "split": _split,
    "join": _join,
    "first": _first,
    "last": _last,
    "b64encode": _b64encode,
    "b64decode": _b64decode,
    "keys": _keys,
    "values": _values,
    "items": _items,
    "get": _get,
    "format": _format,
    "unique": _unique,
    "sum": _sum,
    "safe": to_text,
    "escape": _escape,
    "e": _escape,
    "forceescape": _escape,
}

"""Conversion of a playbook's fields to a tool's config: spellings, types, and the errors for wrong values.

All tools share one table of spellings (protocol/tasks.md#fields) and one decoder (mashumaro). YAML or a plane may have
changed a value's type, such as text to a number. The decoder converts such a value back. The decoder refuses other
wrong values, and the error names the field.
"""

from __future__ import annotations

import base64
import dataclasses
import difflib
import enum
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from noetl_worker.errors import ConfigurationError, TemplateError, did_you_mean
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.secrets.redaction import drop_half_at_end, drop_half_at_start, excerpt
from noetl_worker.text.templates.template import has_template

if TYPE_CHECKING:
    from mashumaro.codecs.basic import BasicDecoder
    from mashumaro.dialect import Dialect

__all__ = ["drop_half_at_end", "drop_half_at_start", "excerpt", "has_template"]
"""Functions of other modules that tools import from here; tools need not know those modules."""

_SPELLINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("command", "commands", "sql", "queries", "cmd", "cmds"),
    "command": ("cmd", "cmds", "commands"),
    "url": ("endpoint",),
    "input": ("args",),
    "database": ("db_path",),
    "auth": ("credential",),
    "timeout": ("timeout_seconds",),
}
"""Canonical field -> other spellings (protocol/tasks.md#fields). A spelling counts only if the tool has the canonical
field and no field named like the spelling. A tool's own `field_aliases` take precedence over this table."""

WORKER_FIELDS: Final[Mapping[str, str]] = {
    "kind": "The tool.",
    "name": "Label of the task, for a tool that has no field of this name.",
    "_label": "Label of the task, as a control plane sends it.",
    "desc": "For people; not read.",
    "description": "For people; not read.",
    "spec": "The tool's fields may stand here too, and `timeout` and `policy`.",
    "input": "Values for the templates and the code of this call, under their own names.",
    "args": "Another spelling of `input`.",
    "timeout": "Longest time of the call: seconds, or a text like 30s, 2m, 1h.",
    "timeout_seconds": "Another spelling of `timeout`.",
    "output": "Where the control plane keeps the result; not read by the worker.",
    "output_select": "What the control plane keeps of the result; not read by the worker.",
    "case": "When/then cases that the worker evaluates on the result of a step; not read at a task of a list.",
    "cases": "Another spelling of `case`.",
    "retry": "Read for a kind that has this field; for others make `tool` a list with a rule `do: retry`.",
    "set": "Values for later steps, made from the output.",
    "next": "The control plane reads it at the step; not read here.",
}
"""Config fields that every kind of tool accepts, each with its meaning for the author of a playbook.

`case`, `cases`, `next` and `retry` are accepted too. But the tool registry warns if such a field stands where it has no
effect, such as `case` in a task of a list.
"""

_NONE: Final[Mapping[str, str]] = {}
_SENSITIVE: Final = ("password", "token", "secret", "auth", "key", "credential", "connection_string", "dsn")


def canonical(
    kind: str, raw: Mapping[str, JsonValue], model: type, own_spellings: Mapping[str, str]
) -> tuple[dict[str, JsonValue], list[str]]:
    """Return the fields of `raw` under the field names of the config model, and the unknown names in `raw`.

    `raw` may have other spellings of a field's name; `own_spellings` maps the tool's own spellings to the fields. A
    field that has two spellings in `raw`, with different values, is an error. Only `input` and `args` are merged; a
    value in `input` replaces a value in `args`. A null counts as absent (the Python plane sends `spec: null`).
    """
    own = field_names(model)
    spellings = field_spellings(model, own_spellings)
    fields: dict[str, JsonValue] = {}
    given_as: dict[str, str] = {}
    unknown: list[str] = []
    for key, value in raw.items():
        name = spellings.get(key, key)
        if name not in own:
            if key not in WORKER_FIELDS:
                unknown.append(key)
        elif value is not None:
            if name in fields:
                value = _merged(kind, name, (given_as[name], key), fields[name], value)
            fields[name] = value
            given_as.setdefault(name, key)
    return fields, unknown


@functools.lru_cache(maxsize=128)
def field_names(model: type) -> frozenset[str]:
    """Return the names of a config model's fields, except those the model fills by itself (`init=False`)."""
    return frozenset(field.name for field in dataclasses.fields(model) if field.init)


def field_spellings(model: type, own_spellings: Mapping[str, str]) -> Mapping[str, str]:
    """Return spelling -> field for a config model, from the common table and from the tool's own spellings."""
    common = _common_spellings(model)
    return {**common, **own_spellings} if own_spellings else common


@functools.lru_cache(maxsize=128)
def _common_spellings(model: type) -> Mapping[str, str]:
    own = field_names(model)
    return {other: name for name, others in _SPELLINGS.items() if name in own for other in others if other not in own}


def lifted(
    raw: Mapping[str, JsonValue], spec: Mapping[str, JsonValue], model: type, own_spellings: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Return the tool's fields that a playbook wrote under `spec`, in any spelling and except `timeout`.

    A field at the top of the config takes precedence over the same field under `spec`. An `input` at the top and one
    under `spec` are merged.
    """
    own, spellings = field_names(model), field_spellings(model, own_spellings)
    at_the_top = {spellings.get(name, name): name for name, value in raw.items() if value is not None}
    found: dict[str, JsonValue] = {}
    for name, value in spec.items():
        field = spellings.get(name, name)
        if field not in own or field == "timeout" or value is None:
            continue
        if field not in at_the_top:
            found[name] = value
        elif field == "input" and isinstance(value, Mapping):
            above = raw[at_the_top[field]]
            if isinstance(above, Mapping):
                found[at_the_top[field]] = {**value, **found.get(at_the_top[field], {}), **above}
    return found


def _merged(kind: str, name: str, keys: tuple[str, str], first: JsonValue, second: JsonValue) -> JsonValue:
    if name == "input" and isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**second, **first} if keys[0] == "input" else {**first, **second}
    if first != second:
        raise ConfigurationError(
            f"{keys[0]!r} and {keys[1]!r} are the same field with two values; keep one", field=keys[1], tool=kind
        )
    return first


def rendered(
    where: str, given: Mapping[str, JsonValue], raw_fields: frozenset[str], render: Callable[[JsonValue], JsonValue]
) -> dict[str, JsonValue]:
    """Return the config fields `given` with their templates rendered, except the fields named in `raw_fields`.

    Raises:
        TemplateError: a template cannot be rendered; the text names the field.
    """
    values: dict[str, JsonValue] = {}
    for name, value in given.items():
        try:
            values[name] = value if name in raw_fields else render(value)
        except TemplateError as error:
            raise TemplateError(f"{where}: field {name!r}: {error}") from error
    return values


# ── decoding ────────────────────────────────────────────────────────────────────────────────────


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # the Rust plane turns `password: "0123"` into a number (protocol/command.md#rust-plane)
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError("not text")


def _integer(value: Any) -> int:
    is_integral = isinstance(value, (int, str)) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_integral:
        raise ValueError("not a whole number")
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a number")
    return float(value)


_WORDS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)) and str(value).strip().lower() in _WORDS:
        return _WORDS[str(value).strip().lower()]
    raise ValueError("not true or false")


@functools.cache
def _lenient() -> type[Dialect]:
    """Return the mashumaro dialect that decodes texts, numbers and booleans tolerantly: `"5"` is a number. mashumaro is
    imported with the first config, not at the worker's start."""
    from mashumaro.dialect import Dialect

    class Lenient(Dialect):
        serialization_strategy = {  # noqa: RUF012 - mashumaro reads the class attribute
            str: {"deserialize": _text},
            int: {"deserialize": _integer},
            float: {"deserialize": _real},
            bool: {"deserialize": _boolean},
        }

    return Lenient


@functools.lru_cache(maxsize=128)
def _decoder(model: type) -> BasicDecoder[Any]:
    from mashumaro.codecs.basic import BasicDecoder

    return BasicDecoder(model, default_dialect=_lenient())


@functools.lru_cache(maxsize=128)
def field_types(model: type) -> Mapping[str, Any]:
    """Return the resolved types of a config model's fields."""
    return typing.get_type_hints(model)


def decode(
    kind: str,
    model: type,
    fields: Mapping[str, JsonValue],
    raw: Mapping[str, JsonValue],
    own_spellings: Mapping[str, str] = _NONE,
) -> Any:
    """Return an instance of `model` with the values of `fields`: canonical names, templates rendered. `raw` has the
    fields as the playbook wrote them; the error for a missing field quotes `raw`.

    Raises:
        ConfigurationError: a field is missing, is null after rendering, or has a value of another type.
    """
    from mashumaro.exceptions import InvalidFieldValue, MissingField

    hints, forms, present = field_types(model), _field_forms(model), {}
    for name, value in fields.items():
        if value is None:
            continue
        if forms[name].is_typed_object and isinstance(value, Mapping):  # nulls count as absent, as everywhere
            value = {key: item for key, item in value.items() if item is not None}
        if not forms[name].fits(value):
            raise _wrong_type(kind, name, hints[name], value)
        present[name] = value
    try:
        return _decoder(model).decode(present)
    except MissingField as error:
        spellings = field_spellings(model, own_spellings)
        others = [other for other, name in spellings.items() if name == error.field_name]
        raise _missing(kind, error.field_name, others, fields, raw) from None
    except InvalidFieldValue as error:
        raise _wrong_type(kind, error.field_name, hints.get(error.field_name), error.field_value) from None
    except ConfigurationError as error:  # from the model's own __post_init__, like the errors below
        raise error.in_tool(kind) if error.field else error from error.__cause__
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{kind}: {error}") from error


def _missing(
    kind: str, name: str, others: Sequence[str], fields: Mapping[str, JsonValue], raw: Mapping[str, JsonValue]
) -> ConfigurationError:
    if name in fields:
        source = next((raw[key] for key in (name, *others) if raw.get(key) is not None), None)
        problem = f"field {name!r} is null: its template {excerpt(str(source), 160)!r} gives nothing"
        return ConfigurationError(problem, field=name, tool=kind)
    usual = f" (or {', '.join(others[:3])})" if others else ""  # an error text names only three spellings
    return ConfigurationError(f"field {name!r}{usual} is missing", field=name, tool=kind, reason="missing")


def _wrong_type(kind: str, name: str, hint: Any, value: Any) -> ConfigurationError:
    if typing.get_origin(hint) is dict and isinstance(value, Mapping):  # then one of its values is of the wrong type
        inner = typing.get_args(hint)[1]
        fits = _container_check(inner)
        odd = next((key for key, item in value.items() if not fits(item)), None)
        if odd is not None:
            name, hint, value = f"{name}.{odd}", inner, value[odd]
    shown = type(value).__name__
    if isinstance(value, (str, int, float)) and not any(word in name.lower() for word in _SENSITIVE):
        shown = f"{excerpt(str(value), 80)!r} ({shown})"
    return ConfigurationError(f"field {name!r} must be {describe(hint)}, not {shown}", field=name, tool=kind)


class _Form(NamedTuple):
    """Type checks for the values of one config field, built once from the field's type and reused. Building a check
    takes longer than a call of the check."""

    fits: Callable[[Any], bool]
    """Function that returns True if a value has lists and objects exactly where the field's type has them. mashumaro
    alone would accept an object for a list, and use its keys."""
    is_typed_object: bool
    """True if the field is an object whose values have a declared type, such as text. Nulls in it are then dropped."""


@functools.lru_cache(maxsize=128)
def _field_forms(model: type) -> Mapping[str, _Form]:
    return {name: _field_form(hint) for name, hint in field_types(model).items()}


def _field_form(hint: Any) -> _Form:
    is_typed = typing.get_origin(hint) is dict and typing.get_args(hint)[1] is not Any
    return _Form(_container_check(hint), is_typed)


def _container_check(hint: Any) -> Callable[[Any], bool]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin in (typing.Union, types.UnionType):
        checks = [_container_check(argument) for argument in arguments]
        return lambda value: any(check(value) for check in checks)
    if origin in (list, Sequence) or hint is list:
        of_items = _container_check(arguments[0]) if arguments else None
        return lambda value: isinstance(value, (list, tuple)) and (of_items is None or all(map(of_items, value)))
    if origin in (dict, Mapping) or hint is dict or dataclasses.is_dataclass(hint):
        return lambda value: isinstance(value, Mapping)
    if hint is type(None):
        return lambda value: value is None
    return lambda value: not isinstance(value, (list, tuple, dict, Mapping))


_NAMES: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    Any: "any value",
}


def describe(hint: Any) -> str:
    """Return a type in a playbook author's words: `text`, `a list of text`, `one of 'a', 'b'`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments if argument is not type(None))
    if origin in (list, Sequence):
        return "a list" if arguments[0] is Any else f"a list of {describe(arguments[0])}"
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (dict, Mapping):
        return "an object"
    if dataclasses.is_dataclass(hint):
        return "an object with " + ", ".join(field.name for field in dataclasses.fields(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "one of " + ", ".join(repr(member.value) for member in hint)
    return _NAMES.get(hint, str(hint))


def text_of_base64(field: str, encoded: str) -> str:
    """Return the text whose base64 form is `encoded`, for the `__post_init__` of a config model. Raise
    ConfigurationError, which names `field`, if `encoded` is not base64 of UTF-8 text."""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except ValueError as error:
        raise ConfigurationError(f"{field!r} is not base64 of UTF-8 text: {error}", field=field) from error


def check_numbers(least: int, most: int | None = None, **given: int | None) -> None:
    """Check that the numbers `given` (field -> number) are in a range, for the `__post_init__` of a config model. None
    is allowed.

    Raises:
        ConfigurationError: a number is below `least` or above `most`.
    """
    for name, value in given.items():
        if value is not None and not least <= value <= (value if most is None else most):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise ConfigurationError(f"{name!r} is {value}: give {allowed}", field=name)


def with_misspelt(error: ConfigurationError, warnings: Sequence[ConfigurationError]) -> ConfigurationError:
    """Return the error, with the warnings about misspelt fields added to its text: a misspelt field is often the
    cause."""
    misspelt = "; ".join(str(warning) for warning in warnings if warning.suggestion)
    return error.in_tool("", because=misspelt) if misspelt else error


def unknown_field(kind: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """Return the warning about a field that the tool does not have."""
    guess, problem = closest(name.removeprefix("spec."), sorted(known)), f"unknown field {name!r} is ignored"
    return ConfigurationError(problem, field=name, suggestion=guess, tool=kind, reason="unknown")


def ignored_field(kind: str, name: str, why: str) -> ConfigurationError:
    """Return the warning about a field that the tool does not read. `why` is the reason, such as a field that replaces
    this one."""
    return ConfigurationError(f"field {name!r} is ignored: {why}", field=name, tool=kind, reason="ignored")


def closest(name: str, known: Sequence[str]) -> str:
    """Return the known name that `name` was probably meant to be, or an empty text if none is close."""
    return _closest(name, tuple(known))


@functools.lru_cache(1024)  # a playbook often repeats its mistake on many arcs
def _closest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known)
    return min(
        close, key=lambda one: sorted(one) != sorted(name), default=""
    )  # first, the same letters in another order


def nearest(name: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?`, or an empty text if no known name is close."""
    return did_you_mean(closest(name, known))

"""Checks of the types and keys in a parsed YAML document, with the error texts of a plane's own parser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from noetl_worker.authoring.outline import Path

UNPROCESSABLE: Final = 422


class Refusal(NamedTuple):
    """A reason why a plane refuses a playbook."""

    path: Path
    """Path of the wrong value, or of the mapping that lacks a key."""
    text: str
    missing: str = ""
    """Name of the missing key; "" if no key is missing."""
    status: int = UNPROCESSABLE
    """HTTP status of the plane's answer."""


def value_at(value: Any, path: Path) -> Any:
    """Return the value at a path inside `value`, or None if the path does not exist."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None
    return value


Shape: TypeAlias = Callable[[Any, Path], Iterator[Refusal]]
"""A function that checks one value at a path of the document. The function yields a Refusal for each mistake in the
value."""


def anything(value: Any, path: Path) -> Iterator[Refusal]:
    yield from ()


def of_type(*types: type, said: str) -> Shape:
    """Return a check that a value has one of the Python types `types`. True and False count only as bool.

    Args:
        said: text of the refusal.
    """

    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield Refusal(path, said)

    return check


def one_of(*allowed: str) -> Shape:
    *first, last = (f"'{name}'" for name in allowed)
    said = f"Input should be {', '.join(first)} or {last}" if first else f"Input should be {last}"

    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, str) or value not in allowed:
            yield Refusal(path, said)

    return check


def optional(shape: Shape) -> Shape:
    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if value is not None:
            yield from shape(value, path)

    return check


def list_of(shape: Shape, said: str = "Input should be a valid list") -> Shape:
    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, list):
            yield Refusal(path, said)
            return
        for index, item in enumerate(value):
            yield from shape(item, (*path, index))

    return check


def mapping_of(shape: Shape = anything, said: str = "Input should be a valid dictionary") -> Shape:
    """Return a check for a mapping whose keys are text and whose values pass the check `shape`."""

    def check(value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, dict):
            yield Refusal(path, said)
            return
        for key, item in value.items():
            if not isinstance(key, str):
                yield Refusal((*path, key), "a key should be text")
            yield from shape(item, (*path, key))

    return check


@dataclass(frozen=True, slots=True)
class Record:
    """Check of a mapping: required keys, forbidden keys, and the type of each key's value. Other keys are ignored."""

    fields: Mapping[str, Shape]
    needed: tuple[str, ...] = ()
    missing: str = "Field required"
    """Text of the refusal for a missing key; `{}` in the text is replaced by the key."""
    no_mapping: str = "Input should be a valid dictionary"
    """Text of the refusal for a value that is no mapping."""
    has_text_keys: bool = False
    """True to refuse keys that are not text."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Forbidden keys, each with the text of its refusal."""

    def __call__(self, value: Any, path: Path) -> Iterator[Refusal]:
        if not isinstance(value, dict):
            yield Refusal(path, self.no_mapping)
            return
        for name in self.needed:
            if name not in value:
                yield Refusal(path, self.missing.format(name), name)
        for key, item in value.items():
            if key in self.refused:
                yield Refusal((*path, key), self.refused[key])
            elif key in self.fields:
                yield from self.fields[key](item, (*path, key))
            elif self.has_text_keys and not isinstance(key, str):
                yield Refusal((*path, key), "a key should be text")

"""Shapes of a document: each says where a value has another one, as a plane's own reader would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from noetl_worker.authoring.outline import Path

UNPROCESSABLE: Final = 422


class Refusal(NamedTuple):
    """A reason for which a plane refuses a playbook."""

    path: Path
    """The value, or the mapping that lacks a key."""
    text: str
    missing: str = ""
    """The key that is not there."""
    status: int = UNPROCESSABLE
    """The plane's answer to the request that it refuses."""


def value_at(value: Any, path: Path) -> Any:
    """Return what stands there, or None."""
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None
    return value


Shape: TypeAlias = Callable[[Any, Path], Iterator[Refusal]]


def anything(value: Any, path: Path) -> Iterator[Refusal]:
    yield from ()


def of_type(*types: type, said: str) -> Shape:
    """Return a shape of these Python types; True and False are no numbers."""

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
    """Return a shape of mappings with keys that are text."""

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
    """A mapping with known keys. Other keys are nobody's business."""

    fields: Mapping[str, Shape]
    needed: tuple[str, ...] = ()
    missing: str = "Field required"
    """`{}` in it stands for the key."""
    no_mapping: str = "Input should be a valid dictionary"
    has_text_keys: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    """Forbidden keys, with the reason for each."""

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

"""What a claim has under the names of earlier steps, in the form of each plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from noetl_worker.models.wire import JsonValue, fields_of

STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Referred:
    """A result of an earlier step that a claim has as a reference and a preview."""

    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """In bytes, as far as the claim says it."""
    summary: Mapping[str, JsonValue]
    """What the claim has under the step's name."""
    record: Mapping[str, JsonValue]
    """What it has under `steps`, on the Rust plane."""


class Names(Protocol):
    """Of one plane."""

    def of_templates(self, variables: dict[str, Any], of_step: Mapping[str, Any]) -> dict[str, Any]:
        """What templates may name, by a claim's variables, which are not changed, and its step's input."""

    def has_packed(self, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether one of them is a packed result, which takes long to read."""

    def whole(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return the result that this object is packed, as the plane hands out any other; the object, where it is not
        packed."""

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        """By the names of their steps."""

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        """Set the step's name, wherever the claim has it, to the full result."""


def referred_as(
    name: str, reference: Mapping[str, JsonValue], summary: Mapping[str, JsonValue], record: Mapping[str, JsonValue]
) -> Referred | None:
    """None: the reference is none to the result store."""
    ref = reference.get("ref")
    if not isinstance(ref, str) or not ref.startswith("noetl://"):
        return None
    size = fields_of(reference.get("meta")).get("bytes")
    return Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)

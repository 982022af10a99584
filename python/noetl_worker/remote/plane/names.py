"""Values of a claim under the names of earlier steps, in the form of each plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from noetl_worker.models.wire import JsonValue, fields_of

STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Referred:
    """Result of an earlier step that a claim has as a reference and a preview."""

    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """Size in bytes, or 0 if the claim does not say it."""
    summary: Mapping[str, JsonValue]
    """Claim's value under the step's name."""
    record: Mapping[str, JsonValue]
    """Claim's value for the step under `steps`, on the Rust plane."""


class Names(Protocol):
    """Names in the claims of one plane. Its results are not packed, unless a plane overrides that."""

    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names for templates, from a claim's variables, left unchanged, and its step's input."""

    def has_packed(self, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether one of the variables is a packed result, which takes long to read."""
        return False

    def whole(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return the result packed in this object, in the form of any other result. An unpacked object stays as it
        is."""
        return value

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        """Return the referred results by step name."""

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        """Set the step's name, wherever the claim has it, to the full result."""


def read_reference(
    name: str, reference: Mapping[str, JsonValue], summary: Mapping[str, JsonValue], record: Mapping[str, JsonValue]
) -> Referred | None:
    """Return the referred result, or None for a reference to anything but the result store."""
    ref = reference.get("ref")
    if not isinstance(ref, str) or not ref.startswith("noetl://"):
        return None
    size = fields_of(reference.get("meta")).get("bytes")
    return Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)

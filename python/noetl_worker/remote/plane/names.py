"""Results of earlier steps in a claim. A claim has each result under its step's name; the layout depends on the plane's
dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from noetl_worker.models.wire import JsonValue, fields_of

STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Referred:
    """Earlier step's result that is in the result store. The answer to the claim has only a reference to the result and
    a preview."""

    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """Size in bytes of an earlier step's stored result, or 0 if the answer to the claim does not tell the size."""
    summary: Mapping[str, JsonValue]
    """Object with the preview of the result. The answer to the claim has this object under the earlier step's name."""
    record: Mapping[str, JsonValue]
    """Object for the earlier step under `steps` in the answer to the claim. Empty on the Python plane, whose answers
    have no `steps`."""


class Names(Protocol):
    """Interface for reading earlier steps' results in claims, implemented for each dialect. The default methods are for
    a plane whose claims never have packed (compressed) results (python/store.py)."""

    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables that templates can use, by name, from a claim's variables and its step's input.

        The variables are left unchanged.
        """

    def has_packed(self, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether one of the variables is a packed (compressed) result, which takes long to unpack."""
        return False

    def unpack(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return `value` with its packed result decompressed, or unchanged if it has no packed result."""
        return value

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        """Return the references to earlier steps' results that the claim does not have in full, by step name."""

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        """Replace the preview of an earlier step's result by the full result `stored`, everywhere in the claim's
        variables."""


def read_reference(
    name: str, reference: Mapping[str, JsonValue], summary: Mapping[str, JsonValue], record: Mapping[str, JsonValue]
) -> Referred | None:
    """Return the description (`Referred`) of an earlier step's result that is in the result store. Return None if
    `reference` does not point into the result store (`noetl://...`)."""
    ref = reference.get("ref")
    if not isinstance(ref, str) or not ref.startswith("noetl://"):
        return None
    size = fields_of(reference.get("meta")).get("bytes")
    return Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)

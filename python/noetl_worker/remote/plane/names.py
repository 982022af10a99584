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
    """Earlier step's result, of which the claim has only a reference and a preview. The result itself is in the result
    store."""

    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """Size of the result in bytes, or 0 if the claim does not name the size."""
    summary: Mapping[str, JsonValue]
    """Value in the claim under the step's name. This value contains the preview of the result."""
    record: Mapping[str, JsonValue]
    """Value in the claim under `steps` and the step's name. Only the Rust plane's claims have `steps`."""


class Names(Protocol):
    """Reader of earlier steps' results in claims, with a subclass for each dialect. The defaults are for a plane
    without packed results (python/store.py)."""

    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names that templates see, made of a claim's variables and its step's input.

        The variables are left unchanged.
        """

    def has_packed(self, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether one of the variables is a packed result. Unpacking such a result takes long."""
        return False

    def unpack(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return the result that is packed in this object, in the layout of unpacked results. Return an object without
        a packed result unchanged."""
        return value

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        """Return the results for which the claim has only a reference. The key is the name of the step."""

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        """Put the full result in place of the preview, everywhere in the claim's variables."""


def read_reference(
    name: str, reference: Mapping[str, JsonValue], summary: Mapping[str, JsonValue], record: Mapping[str, JsonValue]
) -> Referred | None:
    """Return the result that this reference names. Return None if the reference names nothing in the result store
    (`noetl://...`)."""
    ref = reference.get("ref")
    if not isinstance(ref, str) or not ref.startswith("noetl://"):
        return None
    size = fields_of(reference.get("meta")).get("bytes")
    return Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)

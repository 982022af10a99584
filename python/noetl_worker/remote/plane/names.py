"""Results of earlier steps in a claim. The claim has each result under the step's name, in its plane's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from noetl_worker.models.wire import JsonValue, fields_of

STEPS = "steps"


@dataclass(frozen=True, slots=True)
class Referred:
    """A result of an earlier step of which the claim has only a reference and a preview."""

    name: str
    ref: str
    reference: Mapping[str, JsonValue]
    size: int
    """Size of the result in bytes, or 0 if the claim does not say it."""
    summary: Mapping[str, JsonValue]
    """The claim's value under the step's name."""
    record: Mapping[str, JsonValue]
    """The claim's value for the step in `steps`, which only the Rust plane has."""


class Names(Protocol):
    """Reader of earlier steps' results in the claims of one plane. By default no result is packed."""

    def make_template_names(self, variables: dict[str, Any], step_input: Mapping[str, Any]) -> dict[str, Any]:
        """Return the names that templates see, made of a claim's variables and its step's input.

        The variables are left unchanged.
        """

    def has_packed(self, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether one of the variables is a packed result, which takes long to unpack."""
        return False

    def unpack(self, value: Mapping[str, JsonValue]) -> JsonValue:
        """Return the result packed in this object, in the form of other results. Return other objects as they are."""
        return value

    def referred(self, variables: Mapping[str, Any]) -> dict[str, Referred]:
        """Return the results of which the claim has only a reference, by the names of their steps."""

    def put(self, variables: dict[str, Any], earlier: Referred, stored: JsonValue) -> None:
        """Put the full result in place of the preview, everywhere in the claim's variables."""


def read_reference(
    name: str, reference: Mapping[str, JsonValue], summary: Mapping[str, JsonValue], record: Mapping[str, JsonValue]
) -> Referred | None:
    """Return the result that this reference names, or None if the reference does not name one in the result store."""
    ref = reference.get("ref")
    if not isinstance(ref, str) or not ref.startswith("noetl://"):
        return None
    size = fields_of(reference.get("meta")).get("bytes")
    return Referred(name, ref, reference, size if isinstance(size, int) else 0, summary, record)

"""Texts in the tasks of a list that the Rust plane renders itself (protocol/command.md)."""

from __future__ import annotations

from typing import Final

from noetl_worker.authoring.dev.template_names import Reading

_FUNCTIONS: Final = frozenset({"range", "dict", "namespace"})
"""Functions that the plane has. A text with another one is left to the worker."""
LEFT_TO_WORKER: Final = frozenset({"args", "input", "set", "spec", "command"})
"""Fields of a task in a list that the plane does not render."""


def names_of_plane(reading: Reading) -> list[tuple[str, ...]] | None:
    """Return the names for which the plane waits with a text of a task; None if it leaves the text to the worker."""
    if reading.error is not None or any(word.name not in _FUNCTIONS for word in reading.functions):
        return None
    return [chain.names for chain in reading.chains if chain.names[0] in reading.free]

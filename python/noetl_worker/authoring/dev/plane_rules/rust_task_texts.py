"""The rule for whether the Rust plane or the worker renders a template in a list of tasks (protocol/command.md)."""

from __future__ import annotations

from typing import Final

from noetl_worker.authoring.dev.template_names import Reading

_FUNCTIONS: Final = frozenset({"range", "dict", "namespace"})
"""Functions of the Rust plane's template engine. The worker renders a template that calls any other function."""
LEFT_TO_WORKER: Final = frozenset({"args", "input", "set", "spec", "command"})
"""Fields of a task in a list that the Rust plane does not render. The worker renders these fields."""


def names_of_plane(reading: Reading) -> list[tuple[str, ...]] | None:
    """Return the names that must have values before the Rust plane renders a task's template.

    Return None for a template that only the worker renders.
    """
    if reading.error is not None or any(word.name not in _FUNCTIONS for word in reading.functions):
        return None
    return [chain.names for chain in reading.chains if chain.names[0] in reading.free]

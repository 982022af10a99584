"""The templates in a list of tasks that the Rust plane renders itself (protocol/command.md)."""

from __future__ import annotations

from typing import Final

from noetl_worker.authoring.dev.template_names import Reading

_FUNCTIONS: Final = frozenset({"range", "dict", "namespace"})
"""Functions that the plane's template engine has. The worker renders a template that calls any other function."""
LEFT_TO_WORKER: Final = frozenset({"args", "input", "set", "spec", "command"})
"""Fields that the plane does not render in a task of a list."""


def names_of_plane(reading: Reading) -> list[tuple[str, ...]] | None:
    """Return the names in a task's template. The plane renders the template once all of these names have values.

    Return None for a template that only the worker renders.
    """
    if reading.error is not None or any(word.name not in _FUNCTIONS for word in reading.functions):
        return None
    return [chain.names for chain in reading.chains if chain.names[0] in reading.free]

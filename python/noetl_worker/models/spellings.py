"""Synonyms that playbooks may use on both planes."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

INPUTS: Final = ("args", "input")
"""Names of the field with an input. If both fields have a key, the value in `input` counts."""
SEQUENCES: Final = ("task_sequence", "pipeline")
"""Kinds for a list of tasks."""
STEP_OF_TASKS: Final = ":task_sequence"
"""Suffix that the Python plane adds to the name of a step that is a list of tasks."""


def input_names(fields: Container[str]) -> tuple[str, ...]:
    """Return the names of the field with the input of a tool kind. `args` is left out if the kind has its own field of
    that name.

    Args:
        fields: the field names of the kind.
    """
    return INPUTS[1:] if "args" in fields else INPUTS

"""Names that playbooks may use for the same field or tool kind on both planes."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

INPUTS: Final = ("args", "input")
"""Names of the field that has a tool's input. If `args` and `input` are both given and have the same key, the value in
`input` counts."""
SEQUENCES: Final = ("task_sequence", "pipeline")
"""Names of the tool kind that runs a list of tasks."""
STEP_OF_TASKS: Final = ":task_sequence"
"""Suffix that the Python plane adds to the name of a step that is a list of tasks."""


def input_names(fields: Container[str]) -> tuple[str, ...]:
    """Return the field names under which a tool kind accepts its input. `args` is left out if the kind uses `args` for
    something else.

    Args:
        fields: the field names of the kind.
    """
    return INPUTS[1:] if "args" in fields else INPUTS

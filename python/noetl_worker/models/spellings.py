"""Synonyms that playbooks may use on both planes."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

INPUTS: Final = ("args", "input")
"""Field names for an input. If both fields have the same key, the value in `input` counts."""
SEQUENCES: Final = ("task_sequence", "pipeline")
"""Kinds for a list of tasks."""
STEP_OF_TASKS: Final = ":task_sequence"
"""Suffix that the Python plane adds to the name of a step that is a list of tasks."""


def input_names(fields: Container[str]) -> tuple[str, ...]:
    """Return the input names of a kind with these fields: without `args` where that is a field of the kind itself."""
    return INPUTS[1:] if "args" in fields else INPUTS

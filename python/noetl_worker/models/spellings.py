"""Words of playbooks that mean the same, on both planes."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

INPUTS: Final = ("args", "input")
"""The names of an input. Where both give a value under one name, that of `input` counts."""
SEQUENCES: Final = ("task_sequence", "pipeline")
"""The kinds of a list of tasks."""
STEP_OF_TASKS: Final = ":task_sequence"
"""What the Python plane adds to the name of a step that is such a list."""


def inputs_of(fields: Container[str]) -> tuple[str, ...]:
    """The same for a kind with these fields: a container's `args` are a field of its own."""
    return INPUTS[1:] if "args" in fields else INPUTS

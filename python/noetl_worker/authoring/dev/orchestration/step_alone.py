"""A step that is run alone, with given names and values instead of the results of the steps before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from noetl_worker.authoring.dev.orchestration.playbook import Playbook, Step
from noetl_worker.models.spellings import INPUTS
from noetl_worker.models.wire import JsonValue


class ItemPlace(NamedTuple):
    """Index of a loop item (`at`), and number of all items of the loop (`of`)."""

    at: int
    of: int


@dataclass(frozen=True, slots=True)
class StepAlone:
    """A step that is run alone, with values in place of the results of other steps."""

    step: str
    names: Mapping[str, JsonValue]
    """Values given for the step's templates: results of other steps by the step's name, and variables by their name."""
    inputs: Mapping[str, JsonValue]
    """Values that replace the step's own inputs, by name."""
    place: ItemPlace | None = None
    """Index and number of items that a single loop item sees; None: 0 of 1. If `names` has no value for the item, all
    items of the loop run, and this position is ignored."""

    def results(self, playbook: Playbook) -> dict[str, JsonValue]:
        return {name: value for name, value in self.names.items() if name in playbook.steps}

    def variables(self, playbook: Playbook) -> dict[str, JsonValue]:
        return {name: value for name, value in self.names.items() if name not in playbook.steps}

    def playbook_alone(self, playbook: Playbook) -> Playbook:
        """Return the playbook with only this step.

        If the given values (`names`) include the loop variable, the loop runs only once, with this value as its item.
        """
        step = playbook.steps[self.step]
        loop = step.loop
        if loop is not None and loop.iterator in self.names:
            index, size = self.place or ItemPlace(0, 1)
            items: list[JsonValue] = [None] * size
            items[index] = self.names[loop.iterator]
            loop = replace(loop, collection=items, only=index)
        return replace(playbook, steps={step.name: replace(self._with_inputs(step), loop=loop, arcs=(), when=None)})

    def _with_inputs(self, step: Step) -> Step:
        def replaced(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
            return {name: self.inputs.get(name, value) for name, value in fields.items()}

        def with_inputs(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
            return {
                name: replaced(value) if name in INPUTS and isinstance(value, dict) else value
                for name, value in tool.items()
            }

        tool = step.tool
        if isinstance(tool, Mapping):
            tool = with_inputs(tool)
        elif tool is not None:
            tool = [with_inputs(task) for task in tool]
        return replace(step, tool=tool, input=replaced(step.input))

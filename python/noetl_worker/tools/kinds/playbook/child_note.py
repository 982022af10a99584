"""A note at the control plane: which child execution a waiting command has started. The command's next attempt reads
the note, and waits for the same child.

A plane does not list the children of an execution, or the command that started a child
(protocol/executions.md#children). So the worker writes the child's id into a variable of the parent's execution. The
variable holds the id from the start of the child to the end of the wait.
"""

from __future__ import annotations

import re
from typing import Final

from noetl_worker.errors import ControlPlaneError
from noetl_worker.tools.contract import ToolContext

_NOT_IN_NAMES: Final = re.compile(r"\W")
_ADVICE: Final = "do nothing; but if this worker stops meanwhile, cancel the second child that the next attempt starts"


class ChildNote:
    """The variable at the control plane that holds the id of the child execution that one command waits for. A command
    with a list of tasks has one variable, because the tasks run one after another."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._name: Final = f"__child_of_{_NOT_IN_NAMES.sub('_', str(context.command.command_id))}"

    async def read(self) -> int | None:
        """Return the id of the child execution that an earlier attempt of this command waited for. Return None if
        the control plane holds no such id."""
        try:
            noted = await self._context.worker.control_plane.get_var(self._name)
        except ControlPlaneError as error:
            self._context.logger.warning("child_id_not_read", error=str(error), advice=_ADVICE)
            return None
        return int(noted) if isinstance(noted, str) and noted.isdecimal() else None

    async def write(self, execution_id: int | None) -> None:
        """Store the child execution's id at the control plane. None, after the wait for the child, clears the id."""
        noted = str(execution_id) if execution_id is not None else ""
        try:
            await self._context.worker.control_plane.set_vars({self._name: noted})
        except ControlPlaneError as error:
            self._context.logger.warning("child_id_not_stored", error=str(error), advice=_ADVICE)

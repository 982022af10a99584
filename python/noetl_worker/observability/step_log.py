"""Warnings of a command, once for each playbook and step: a loop of a thousand items has one cause and one line."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from noetl_worker.models.command import Command

REMEMBERED: Final = 10_000


class Warned:
    """Warnings already logged. Beyond REMEMBERED the oldest is forgotten, and would be logged again."""

    def __init__(self) -> None:
        self._logged: OrderedDict[int, None] = OrderedDict()

    def is_new(self, *what: str) -> bool:
        known = hash(what)  # the texts may be long
        if known in self._logged:
            self._logged.move_to_end(known)
            return False
        self._logged[known] = None
        if len(self._logged) > REMEMBERED:
            self._logged.popitem(last=False)
        return True


class StepLog:
    """A logger whose warnings are repeated at the level debug only.

    The playbook is known by its catalog id; where a claim has none, by the execution.
    """

    def __init__(self, logger: Any, warned: Warned, command: Command) -> None:
        self._logger = logger
        self._warned = warned
        self._place = (command.catalog_id or str(command.execution_id), command.step)
        self.debug: Final = logger.debug
        self.info: Final = logger.info
        self.error: Final = logger.error

    def warning(self, event: str, **fields: Any) -> None:
        is_new = self._warned.is_new(*self._place, event, *(f"{name}={fields[name]!r}" for name in sorted(fields)))
        (self._logger.warning if is_new else self._logger.debug)(event, **fields)

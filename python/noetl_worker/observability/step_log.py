"""Warnings that are logged once for each playbook and step, so that a loop of a thousand items logs one line."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from noetl_worker.models.command import Command

REMEMBERED: Final = 10_000


class Warned:
    """The warnings that this worker has logged already, so that each is logged once. Beyond REMEMBERED warnings, the
    least recent warning is forgotten."""

    def __init__(self) -> None:
        self._logged: OrderedDict[int, None] = OrderedDict()

    def is_new(self, *what: str) -> bool:
        """Return True for a warning that was not logged yet, and remember it."""
        known = hash(what)  # the texts may be long
        if known in self._logged:
            self._logged.move_to_end(known)
            return False
        self._logged[known] = None
        if len(self._logged) > REMEMBERED:
            self._logged.popitem(last=False)
        return True


class StepLog:
    """The logger of one command. A warning that was logged before is logged at the level debug.

    Two warnings are the same if their event, fields, step and playbook are equal. A playbook is identified by its
    catalog id. If the claim has no catalog id, the execution's id is used instead.
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

"""The operator's rules for the kinds of tools that this worker may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CARRIERS: Final = frozenset({"task_sequence", "workbook"})
"""Kinds `task_sequence` and `workbook`, which only run tools of other kinds. A list of allowed kinds need not name
them: the rules apply to each inner tool."""


@dataclass(frozen=True, slots=True)
class KindRules:
    """The tool kinds that the operator allows and denies. Callers must first replace an alias by the kind's own
    name."""

    only: frozenset[str] = frozenset()
    """Kinds that may run. Empty: every kind."""
    denied: frozenset[str] = frozenset()

    def refusal(self, kind: str) -> str | None:
        """Return the reason why the operator's rules forbid the kind, or None if the kind may run."""
        if kind in self.denied:
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS_DENY names it"
        if self.only and kind not in self.only | CARRIERS:
            listed = ", ".join(sorted(self.only))
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS is {listed}"
        return None

"""The operator's rules for the kinds of tools that this worker may run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CARRIERS: Final = frozenset({"task_sequence", "workbook"})
"""Kinds that only run tools of other kinds. A list of allowed kinds need not name these two kinds: the rules apply to
each inner tool."""


@dataclass(frozen=True, slots=True)
class KindRules:
    """Allowed and denied kinds. An alias must be replaced by the kind's own name first."""

    only: frozenset[str] = frozenset()
    """Kinds that may run. Empty: every kind."""
    denied: frozenset[str] = frozenset()

    def refusal(self, kind: str) -> str | None:
        """Return why this kind does not run here, or None if it does."""
        if kind in self.denied:
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS_DENY names it"
        if self.only and kind not in self.only | CARRIERS:
            listed = ", ".join(sorted(self.only))
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS is {listed}"
        return None

"""Rules for which kinds of tools this worker runs at all, whatever a playbook asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CARRIERS: Final = frozenset({"task_sequence", "workbook"})
"""Kinds that only run other kinds. The other kinds are checked by themselves, so a list of allowed kinds need not name
these two."""


@dataclass(frozen=True, slots=True)
class KindRules:
    """Allowed and denied kinds, by their own names without aliases."""

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

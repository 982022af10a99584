"""Which kinds of tools run on this worker at all, whatever a playbook asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CARRIERS: Final = frozenset({"task_sequence", "workbook"})
"""They do nothing but run other kinds, each of which is asked for by itself: a list of kinds need not name them."""


@dataclass(frozen=True, slots=True)
class KindRules:
    """Kinds by their own names, no aliases."""

    only: frozenset[str] = frozenset()
    """Empty: every kind."""
    denied: frozenset[str] = frozenset()

    def refusal(self, kind: str) -> str | None:
        """Why this kind does not run, None where it does."""
        if kind in self.denied:
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS_DENY names it"
        if self.only and kind not in self.only | CARRIERS:
            listed = ", ".join(sorted(self.only))
            return f"kind {kind!r} does not run on this worker: its NOETL_WORKER_KINDS is {listed}"
        return None

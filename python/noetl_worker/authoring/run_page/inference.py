"""An end that the Python plane infers: it calls an execution COMPLETED while no command is open, between steps too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

_ENDED: Final = frozenset({"playbook.completed", "workflow.completed"})
_ENDS: Final = frozenset({"command.completed", "command.failed"})


def inferred_end(status: object, events: Iterable[Mapping[str, Any]]) -> str:
    """Return what speaks for and against an end that no event tells; empty for any other state.

    Args:
        status: the plane's word for the execution.
        events: those of the execution, the newest at least.
    """
    issued: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for event in events:
        kind = event.get("event_type")
        if kind in _ENDED:
            return ""
        step = str(event.get("node_name")).partition(":")[0]
        issued[step] += kind == "command.issued"
        ended[step] += kind in _ENDS
    if status != "COMPLETED" or not issued:
        return ""
    counts = [f"{step} has {ended[step]} of {issued[step]}" for step in issued if issued[step] > 1 or not ended[step]]
    return f"inferred by the plane, no event says so{'; ' if counts else ''}{', '.join(counts)}"

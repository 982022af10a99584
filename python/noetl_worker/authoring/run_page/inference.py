"""A remark on the execution page about a status COMPLETED that may be wrong, since the Python plane only inferred it.

The plane shows COMPLETED whenever no command is open, even between two steps. So the execution may still go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

_ENDED: Final = frozenset({"playbook.completed", "workflow.completed"})
_ENDS: Final = frozenset({"command.completed", "command.failed"})


def inferred_end(status: object, events: Iterable[Mapping[str, Any]]) -> str:
    """Return a remark for the reader if the status is COMPLETED but no event says that the execution completed.

    The remark counts the ended commands of each step. Return "" for another status, or if an event confirms COMPLETED.

    Args:
        status: the plane's status of the execution.
        events: events of the execution; at least the newest ones.
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

"""What we gave where it is not what was recorded, as it was accepted: a line of difference alone excuses any value.

`values/ours.jsonl` has a line for each playbook of differences.yaml and plane; `make values` writes it. A change of
ours is then seen in the diff of that file, and reviewed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compat.values_compare import differences, plain
from compat.values_server import RECORDED_AT

OURS = Path(__file__).parent / "values" / "ours.jsonl"
LONGEST_TEXT = 200
MOST_ITEMS = 20
_COMPARED = ("status", "exit_code", "value")
Run = Mapping[str, Any]


def accepted() -> dict[tuple[str, str], dict[str, Any]]:
    """By plane and playbook."""
    with OURS.open(encoding="utf-8") as lines:
        return {(one["plane"], one["name"]): one for one in map(json.loads, lines)}


def changes(kept: Run, seen: Run) -> list[str]:
    """Where a run, as `stable` gives it, is not the one that was accepted: `path: accepted | now`."""
    return differences(kept, seen, RECORDED_AT)


def write(found: Mapping[tuple[str, str], Run]) -> None:
    lines = [json.dumps({"plane": plane, **run}, ensure_ascii=False) for (plane, _), run in sorted(found.items())]
    OURS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def stable(run: Run, server: str) -> dict[str, Any]:
    """A run of ours without what is another one in every run; what is long is shown by its size and a digest."""
    steps = {step: _step(given, server) for step, given in sorted(run.get("steps", {}).items())}
    kept = {key: run[key] for key in ("name", "outcome") if key in run}
    events = sorted(run.get("events", []), key=lambda event: event[1] or "")  # stable: by step, in their order
    children = [stable(child, server) for child in run.get("children", [])]
    return {**kept, "steps": steps, "events": events, **({"children": children} if children else {})}


def _step(step: Mapping[str, Any], server: str) -> dict[str, Any]:
    if "runs" in step:
        runs = [_step(one, server) for one in step["runs"]]
        return {"runs": sorted(runs, key=lambda one: json.dumps(one, sort_keys=True))}
    kept = {key: shortened(plain(step[key], server)) for key in _COMPARED if key in step}
    return {**kept, **({"error": True} if step.get("error") else {})}  # which words an error has, other tests say


def shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if len(value) <= MOST_ITEMS:
            return [shortened(inner) for inner in value]
        ends = {"first": shortened(value[0]), "last": shortened(value[-1])}
        return {"items": len(value), **ends, "digest": _digest(json.dumps(value, sort_keys=True))}
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:40]}... <{len(value)} characters, {_digest(value)}>"
    return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]

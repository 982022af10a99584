"""What may differ between the two workers on the real Rust plane, and what came of the last comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat.values_run import names
from compat.values_table import OPEN, VALUES, Table, reasons_of_each_class

if TYPE_CHECKING:
    from compat.live_pair import Both

PLANE = "rust"
HERE = Path(__file__).parent / "values"
LIVE = HERE / "live.yaml"
LIVE_FOLDER = HERE / "live"
REFUSED = "refused"
"""Outcome of a playbook that the plane does not take: there is nothing of either worker to compare."""
RESULTS = HERE / "live.jsonl"
"""Of `make compat-values`: a line a playbook."""


@dataclass
class LiveTable:
    """live.yaml over differences.yaml: what differs beside the development plane differs here, and more.

    Not what only a plane explains: both workers are on the real one here, and it does the same to both.
    """

    table: Table
    live: Table

    @classmethod
    def load(cls) -> LiveTable:
        return cls(Table.load(VALUES).without("plane"), Table.load(LIVE))

    def unexplained(self, name: str, lines: Sequence[str]) -> list[str]:
        return self.live.unexplained(PLANE, name, self.table.unexplained(PLANE, name, lines))

    def why(self, name: str, lines: Sequence[str]) -> list[str]:
        """The reasons of what differs, each once; those for every playbook left out."""
        found = [OPEN] * bool(self.unexplained(name, lines))
        for line in lines:
            found += [why for table in (self.table, self.live) for why in table.reasons_of(PLANE, name, line)]
        return list(dict.fromkeys(found))

    @property
    def reasons(self) -> dict[str, dict[str, str]]:
        return {**self.table.reasons, **self.live.reasons}


def live_names() -> list[str]:
    return sorted(path.stem for path in LIVE_FOLDER.glob("*.yaml"))


def write_results(found: Sequence[Both], table: LiveTable) -> None:
    """Of what was run; what is known of the others stays."""
    rows = {one["playbook"]: one for one in results()}
    for one in found:
        theirs, ours = one.outcomes
        why = table.why(one.name, one.lines)
        rows[one.name] = {"playbook": one.name, "published": theirs, "ours": ours, "why": why}
    RESULTS.write_text("".join(f"{json.dumps(rows[name])}\n" for name in sorted(rows)), encoding="utf-8")


def missing() -> list[str]:
    """Playbooks that were never run."""
    return sorted({*names(), *live_names()} - {one["playbook"] for one in results()})


def live_counts() -> tuple[int, int, int, int, int]:
    """How many named playbooks there are, are equal, differ for a reason, are open, and are refused by the plane."""
    playbooks = results()
    differing = [one for one in playbooks if one["why"]]
    unsettled = sum(OPEN in one["why"] for one in differing)
    refused = sum(is_refused(one) for one in playbooks)
    return len(playbooks), len(playbooks) - refused - len(differing), len(differing) - unsettled, unsettled, refused


def live_page(table: LiveTable) -> Iterator[str]:
    """What the last `make compat-values` gave."""
    playbooks = results()
    total, *rest = live_counts()
    yield "# Both workers live on the real Rust plane"
    yield ""
    yield "`make compat-values` runs the same playbooks and those of `tests/compat/values/live` through the published"
    yield "Rust worker and through this one, each on a real plane of its own, and compares the order and the shape of"
    yield "the events of each step, and every value. Only what differs in two runs counts. The server knows no kinds"
    yield "mcp, result_fetch and provider: it refuses their playbooks, and gives them to neither worker."
    yield ""
    yield "| playbooks | equal | differ, each for a reason | open | refused by the plane |"
    yield "|---|---|---|---|---|"
    yield f"| {total} | " + " | ".join(map(str, rest)) + " |"
    yield ""
    if never_run := missing():
        yield f"Not run yet: {', '.join(never_run)}."
    yield from reasons_of_each_class(table.live.reasons)
    yield ""
    yield "| playbook | published worker | this worker | values and events |"
    yield "|---|---|---|---|"
    for one in playbooks:
        what = "refused by the plane" if is_refused(one) else ", ".join(one["why"]) or "equal"
        yield f"| {one['playbook']} | {one['published']} | {one['ours']} | {what} |"


def is_refused(row: Mapping[str, Any]) -> bool:
    return row["published"] == row["ours"] == REFUSED


def results() -> list[dict[str, Any]]:
    with RESULTS.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

"""What may differ between the two workers on the real Rust plane, and what came of the last comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from compat.values_run import names
from compat.values_table import OPEN, VALUES, Table, reasons_of_each_class

if TYPE_CHECKING:
    from compat.live_pair import Both
    from compat.random_pairs import Explored

PLANE = "rust"
HERE = Path(__file__).parent / "values"
LIVE = HERE / "live.yaml"
LIVE_FOLDER = HERE / "live"
COUNTS = ("equal", "explained", "open")
REFUSED = "refused"
"""Outcome of a playbook that the plane does not take: there is nothing of either worker to compare."""
RESULTS = HERE / "live.jsonl"
"""Of `make compat-values`: a line a playbook, then one about the random ones."""


@dataclass
class RandomLine:
    """A difference in random playbooks that has a reason: where, and where it matters, between which values."""

    why: str
    path: str
    theirs: str = "*"
    ours: str = "*"

    def is_about(self, line: str) -> bool:
        path, _, values = line.partition(": ")
        theirs, _, ours = values.partition(" | ")
        both = ((path, self.path), (theirs, self.theirs), (ours, self.ours))
        return all(fnmatchcase(re.sub(r"[\[\]]", "", value), pattern) for value, pattern in both)


@dataclass
class LiveTable:
    """live.yaml over differences.yaml: what differs beside the development plane differs here, and more.

    Not what only a plane explains: both workers are on the real one here, and it does the same to both.
    """

    table: Table
    live: Table
    random: list[RandomLine]

    @classmethod
    def load(cls) -> LiveTable:
        found: dict[str, Any] = yaml.safe_load(LIVE.read_text(encoding="utf-8"))
        drawn = [RandomLine(**one) for one in found.get("random") or ()]
        return cls(Table.load(VALUES).without("plane"), Table.load(LIVE), drawn)

    def unexplained(self, name: str, lines: Sequence[str]) -> list[str]:
        return self.live.unexplained(PLANE, name, self.table.unexplained(PLANE, name, lines))

    def unexplained_random(self, lines: Sequence[str]) -> list[str]:
        """Of a random playbook: only what holds everywhere and what `random` says."""
        left = self.unexplained("", lines)
        return [line for line in left if not any(one.is_about(line) for one in self.random)]

    def why(self, name: str, lines: Sequence[str]) -> list[str]:
        """The reasons of what differs, each once; those for every playbook left out."""
        found = [OPEN] * bool(self.unexplained(name, lines))
        for line in lines:
            found += [why for table in (self.table, self.live) for why in table.reasons_of(PLANE, name, line)]
        return list(dict.fromkeys(found))

    def why_random(self, lines: Sequence[str]) -> list[str]:
        found = [OPEN] * bool(self.unexplained_random(lines))
        return list(dict.fromkeys(found + [one.why for line in lines for one in self.random if one.is_about(line)]))

    @property
    def reasons(self) -> dict[str, dict[str, str]]:
        return {**self.table.reasons, **self.live.reasons}


def live_names() -> list[str]:
    return sorted(path.stem for path in LIVE_FOLDER.glob("*.yaml"))


def write_results(found: Sequence[Both], table: LiveTable, explored: Explored, seed: int) -> None:
    """Of what was run; what is known of the others stays, and those that were never run are named."""
    *known, drawn = results() if RESULTS.exists() else [{}]
    rows = {one["playbook"]: one for one in known}
    for one in found:
        theirs, ours = one.outcomes
        why = table.why(one.name, one.lines)
        rows[one.name] = {"playbook": one.name, "published": theirs, "ours": ours, "why": why}
    if explored.seen:
        counts = explored.counts(table.why_random)
        drawn = {"random": sum(counts), "seed": seed, **dict(zip(COUNTS, counts, strict=True))}
    drawn["missing"] = sorted({*names(), *live_names()} - rows.keys())
    lines = [json.dumps(row) for row in (*(rows[name] for name in sorted(rows)), drawn)]
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def live_counts() -> tuple[int, int, int, int, int]:
    """How many named playbooks there are, are equal, differ for a reason, are open, and are refused by the plane."""
    *playbooks, _ = results()
    differing = [one for one in playbooks if one["why"]]
    unsettled = sum(OPEN in one["why"] for one in differing)
    refused = sum(is_refused(one) for one in playbooks)
    return len(playbooks), len(playbooks) - refused - len(differing), len(differing) - unsettled, unsettled, refused


def live_page(table: LiveTable) -> Iterator[str]:
    """What the last `make compat-values` gave."""
    *playbooks, drawn = results()
    total, *rest = live_counts()
    yield "# Both workers live on the real Rust plane"
    yield ""
    yield "`make compat-values` runs the same playbooks, those of `tests/compat/values/live` and random ones through"
    yield "the published Rust worker and through this one, each on a real plane of its own, and compares the order and"
    yield "the shape of the events of each step, and every value. Only what differs in two runs counts. The server"
    yield "knows no kinds mcp, result_fetch and provider: it refuses their playbooks, and gives them to neither worker."
    yield ""
    yield "| playbooks | equal | differ, each for a reason | open | refused by the plane |"
    yield "|---|---|---|---|---|"
    yield f"| {total} named | " + " | ".join(map(str, rest)) + " |"
    counts = " | ".join(str(drawn[key]) for key in COUNTS)
    yield f"| {drawn['random']} random (seed {drawn['seed']}) | {counts} | |"
    yield ""
    if drawn["missing"]:
        yield f"Not run yet: {', '.join(drawn['missing'])}."
    if "without" in drawn:
        yield f"The run of the random ones is older than {drawn['without']} in their grammar."
    own = {why for one in playbooks for why in one["why"]} | {one.why for one in table.random}
    own |= set(table.live.everywhere[PLANE].values())
    yield from reasons_of_each_class({name: table.reasons[name] for name in own & table.live.reasons.keys()})
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

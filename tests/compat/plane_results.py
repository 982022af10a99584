"""What the last `make compat` gave: this worker on the real Rust plane, beside what the published one does there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PLAYBOOKS = Path(__file__).parent / "playbooks" / "rust"
RESULTS = Path(__file__).parent / "values" / "plane.json"
"""Written by `make compat`."""


def write_results(version: str, rows: Sequence[dict[str, Any]]) -> None:
    """Without durations and texts: they are others in every run."""
    lines = ",\n".join("    " + json.dumps(row) for row in rows)
    RESULTS.write_text(
        f'{{\n  "server": {json.dumps(version)},\n  "playbooks": [\n{lines}\n  ]\n}}\n', encoding="utf-8"
    )


def plane_counts() -> tuple[int, int, int, int]:
    """How many playbooks there are, end as with the published worker, as expected otherwise, and not as expected."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["playbooks"]
    as_expected = sum(row["ours"] == row["expected"] for row in rows)
    equal = sum(row["ours"] == row["expected"] == row["published"] for row in rows)
    return len(rows), equal, as_expected - equal, len(rows) - as_expected


def plane_page() -> Iterator[str]:
    yield "# This worker on the real Rust plane"
    yield ""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = found["playbooks"]
    good = sum(row["ours"] == row["expected"] for row in rows)
    yield "`make compat` runs the playbooks of `tests/compat/playbooks/rust` through this worker on noetl-server"
    yield f"{found['server']}. As expected: {good} of {len(rows)}."
    yield ""
    yield "Compared is how an execution ends. `works-here`: the published worker refuses `args` of rhai but text."
    yield ""
    yield "| playbook | published worker | expected of this worker | this worker | end |"
    yield "|---|---|---|---|---|"
    for row in rows:
        ours = row["ours"] if row["ours"] == row["expected"] else f"**{row['ours']}**"
        why = "equal" if row["published"] == row["ours"] else "works-here" if row["ours"] == row["expected"] else "open"
        yield f"| {row['playbook']} | {row['published']} | {row['expected']} | {ours} | {why} |"

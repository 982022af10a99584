"""The last table of docs/compatibility.md, and the pages of each playbook, made of the tables of the recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from compat.live_table import COUNTS, LiveTable, live_counts, live_page, results
from compat.plane_results import plane_counts, plane_page
from compat.values_replay import not_compared
from compat.values_run import names
from compat.values_table import CLAIMS, PLANES, TITLES, VALUES, Table, claims_page, counts_of, recorded_page

PAGE: Final = VALUES.parents[3] / "docs" / "compatibility.md"
_ENTRY: Final = "../tests/compat/values"

_OF_THE_SOURCE: Final = """
## Of the Rust plane's source alone

No playbook shows these: what the published worker does is read in its source.

- Kind container: theirs is over when the Job is made, and the platform's k8s-watcher reports the Job's end as that of
  the step. Ours waits for the Job and reports its end. Its Jobs have labels of their own (`noetl-worker.execution-id`):
  the watcher selects `noetl.execution-id`, and would report them a second time.
- Kind postgres: without `auth`, `host` and `connection_string` theirs connects to localhost; ours refuses the task.
"""

_TABLE: Final = """\
| compared | playbooks | equal | differ, with a reason | open | each |
|---|---|---|---|---|---|
"""


def pages() -> dict[Path, str]:
    """File -> text: the page for people, and those that have each playbook."""
    playbooks = names()
    recorded, claims = Table.load(VALUES), Table.load(CLAIMS)
    beside = {
        "recorded.md": recorded_page(recorded, playbooks),
        "claims.md": claims_page(claims, playbooks, {one: not_compared(one) for one in PLANES}),
        "live.md": (*live_page(LiveTable.load()), *_OF_THE_SOURCE.rstrip().split("\n")),
        "plane.md": plane_page(),
    }
    made = {VALUES.parent / name: "\n".join(lines) + "\n" for name, lines in beside.items()}
    rows = "\n".join(f"| {' | '.join(map(str, row))} |" for row in _measured(recorded, playbooks))
    written, *_ = PAGE.read_text(encoding="utf-8").partition(_TABLE)
    return {PAGE: f"{written}{_TABLE}{rows}\n", **made}


def write_pages() -> None:
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8")


def _measured(recorded: Table, playbooks: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Of each comparison: what, how many, equal, explained, open, and where each playbook is."""
    for plane in PLANES:
        yield f"with recordings, {TITLES[plane]} plane", *counts_of(recorded, plane, playbooks), _link("recorded.md")
    total, *counts, refused = live_counts()
    yield "live with the published Rust worker", total - refused, *counts, _link("live.md")
    drawn = results()[-1]
    yield "the same, random playbooks", drawn["random"], *(drawn[key] for key in COUNTS), _link("live.md")
    yield "how an execution ends on a real Rust plane", *plane_counts(), _link("plane.md")


def _link(name: str) -> str:
    return f"[{name}]({_ENTRY}/{name})"

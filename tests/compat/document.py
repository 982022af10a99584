"""docs/compatibility.md, and the pages of each playbook beside the recordings, made of the tables there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from compat.live_table import COUNTS, LiveTable, live_counts, live_page, results
from compat.plane_results import plane_counts, plane_page
from compat.values_replay import not_compared
from compat.values_run import names
from compat.values_table import CLAIMS, PLANES, TITLES, VALUES, Table, claims_page, counts_of, recorded_page
from noetl_worker.remote.plane.health import SERVED

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

_PLANES: Final = f"""\
# Compatibility: which control planes are served, and what differs

This worker serves {SERVED}.
It asks the plane which one it is; `noetl-worker doctor` shows the version.

* **The last NATS planes** are the Rust ones up to 3.60.1 and the Python ones. They are recorded and compared below.
* **Today's server** (3.60.2 and later, recorded with 3.83.1) has no NATS and needs [a bridge](todays-server.md).
  Without one the worker does not start, and names the command. If a plane leaves NATS later, the worker is not ready
  (`plane_left_nats`).
  Of 109 of upstream's playbooks that name no cloud service 72 completed there, by hand. Of the others 16 ask the
  internet, 11 need a table or a service that was not there, and 4 the server refuses.

| | Python plane | Rust plane |
|---|---|---|
| recorded and compared with | NoETL 4.0.0 | noetl-server 3.54.0, noetl-worker 5.52.0 |
| events of a command | one batch, under a key | single events with their own ids |
| next commands are issued | from the batch, later | inside of the request with the last event |
| a claim | a lease of 120 s, renewed | for ever, for one `WORKER_ID` |
| id that claims | `WORKER_ID` and a suffix for each process | `WORKER_ID` itself: set it |
| a command of a worker that was killed | another worker takes it after the lease | the same `WORKER_ID` takes it |

| platform | what works | shown by |
|---|---|---|
| Linux, glibc or musl | everything | every check |
| macOS | `run`, `dev`, the tool kinds; the [isolation](security.md) of commands has only the limits | a job of CI |
| Windows | the pure wheel installs; `run` and `dev` refuse (exit code 3). Use WSL, which is Linux | unit tests |

The macOS job uses the engine in Python: unit and engine tests, the worker as a process, `shell`, `python`, the demo.

[migration.md](migration.md) has the variables and metrics of the published workers. [tools/](tools/README.md) has the
fields of each kind.

## Differences that matter

Each name leads to its reason, and to the playbook that it breaks, in
[recorded.md]({_ENTRY}/recorded.md) or [live.md]({_ENTRY}/live.md).

* Timeouts that a step sets are applied: `timeouts`, `http-timeout`.
* A template that does not parse is an error. A name below a missing one is empty, and null in `set`:
  `template-errors`, `missing-empty`.
* Data is never rendered or parsed again; text prints values as JSON: `text-stays-text`, `text-as-json`.
* `set` keeps types, works in a task, and its `ctx.` names leave the list of tasks: `types-kept`, `task-set`,
  `ctx-leaves`.
* A failed step says kind, code and whether a retry may help, without id, trace or duration: `error-shape`,
  `error-fields`.
* An error that a tool raises reaches the rules of its list of tasks: `rules-after-errors`.
* Rules that make no sense are refused before the first task; a condition holds as its value does: `rule-refused`,
  `unknown-verb`, `value-truth`.
* A child that is waited for gives its data, and fails its step if it fails: `child-data`, `child-fails`.
* SQL texts are one transaction, with dates as text and NaN kept: `one-transaction`, `sql-types`, `sql-no-rows`.
* `shell` runs a text as one process and keeps its output as printed: `shell-process`, `last-newline`.
* `python` without a result gives what it printed; each value has a JSON form: `python-output`, `python-values`.
* `ducklake` is a lake, not DuckDB by another name: `ducklake-lake`.
* `container` waits for its Job and reports its end; theirs is over when the Job is made.
* Some things that fail or are lost there work here: `works-here`, `stored-results`, `list-result`, `transfer-auth`.

## How it is measured

Small playbooks, one behaviour each, were run with the published workers on their real planes. Every value, outcome and
event is compared. `make sweeps` compares with the recordings, `make compat-values` and `make compat` on a real Rust
plane. The claims of `noetl-worker dev` are compared too: [claims.md]({_ENTRY}/claims.md).

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
    return {PAGE: f"{_PLANES}{rows}\n", **made}


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

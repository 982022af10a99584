"""docs/compatibility.md, made of the tables beside it."""

from __future__ import annotations

from typing import Final

from compat.live_table import LiveTable, live_section
from compat.plane_results import plane_section
from compat.values_replay import not_compared
from compat.values_run import names
from compat.values_table import CLAIMS, PLANES, VALUES, Table, document_of
from noetl_worker.plane.health import SERVED

_PLANES: Final = f"""\
# Compatibility

Served are {SERVED}.
The worker asks the plane which one it is at its start; `noetl-worker doctor` shows its version. A plane that no longer
sends commands over NATS refuses the start with the versions that are served; one that becomes such while the worker
runs makes it not ready (`plane_left_nats`).

| | Python plane | Rust plane |
|---|---|---|
| recorded and compared with | NoETL 4.0.0 | noetl-server 3.54.0, noetl-worker 5.52.0 |
| events of a command | one batch, under a key | single events with their own ids |
| next commands are issued | from the batch, later | inside of the request with the last event |
| a claim | a lease of 120 s, renewed | for ever, for one `WORKER_ID` |
| id that claims | `WORKER_ID` and a suffix for each process | `WORKER_ID` itself: set it |
| a command of a worker that was killed | another worker takes it after the lease | the same `WORKER_ID` takes it |

## Platforms

| | what works | shown by |
|---|---|---|
| Linux, glibc or musl | everything | every check |
| macOS | `run`, `dev` and the tool kinds; of the [isolation](security.md) of commands the limits only | a job of CI |
| Windows | the pure wheel installs; `run` and `dev` refuse with a message and exit code 3 | unit tests |

The job on macOS runs, on the engine in Python: the unit tests, the engine's tests, the worker as a process, the kinds
`shell` and `python`, and the demo. On Windows take the Windows Subsystem for Linux, which is Linux.

[migration.md](migration.md) has the variables and metrics of the published workers, [tools/](tools/README.md) the
fields of each kind.
"""

_OF_THE_SOURCE: Final = """
## Of the Rust plane's source alone

No playbook of the tables above shows these: what the published worker does is read in its source.

- Kind container: theirs is over when the Job is made, and the platform's k8s-watcher reports the Job's end as that of
  the step. Ours waits for the Job and reports its end. Its Jobs have labels of their own (`noetl-worker.execution-id`):
  the watcher selects `noetl.execution-id`, and would report them a second time.
- Kind postgres: without `auth`, `host` and `connection_string` theirs connects to localhost; ours refuses the task.
"""


def document() -> str:
    recorded = document_of(Table.load(VALUES), Table.load(CLAIMS), names(), {one: not_compared(one) for one in PLANES})
    live = live_section(LiveTable.load())
    return "\n".join((_PLANES, *recorded, *live, *_OF_THE_SOURCE.rstrip().split("\n"), *plane_section())) + "\n"

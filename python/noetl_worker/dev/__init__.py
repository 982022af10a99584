"""A control plane and a NATS server of our own, for `noetl-worker dev` and for tests.

It is a development stand-in. The wire is the real planes' (statuses, keys and types of every answer are compared with
recordings of them, tests/compat); the DSL core is driven the way a playbook author expects. Where that is not what
the real planes do:

differs-from-upstream:

| what | the real plane | here |
|---|---|---|
| results of a loop (Python) | `step.results` holds the last item only | all items, in the items' order |
| results of a loop (Rust) | `command_id` and `status` of each item; no data | the data too, in the items' order |
| `loop.length` (Python) | always 0 | the number of items |
| a loop over an empty list, or an execution whose first step has no tool | runs for ever | goes on to the next step |
| an execution that ends at its first command, by batch (Python) | inferred as complete | `playbook.completed` |
| single events `call.done`, then `command.completed` (Python v4.0.0) | steps run, the execution never ends | it ends |
| a parallel loop with a failed item (Python) | stays open, with `failed: true` | ends FAILED once all are back |
| `output.error` in an arc or an `input` behind `call.error` (Python) | null | the error text |
| no arc holds (Rust) | both skipped, runs for ever | ends COMPLETED |
| `{{ step.status }}` after a tool that failed (Rust) | not in scope | `error`, with `{{ step.error }}` |
| parallel loop, `max_in_flight` (Rust) | all items at once | at most that many |
| `cases` of a step or tool | rendered with everything else, or dropped | reach the worker as written |
| `{{ ctx.x }}` that is not there | stays as literal text (Python) | null, or nothing inside other text |
| `length` of something undefined (Rust) | `playbook.failed` | 0, as Jinja says |
| simultaneous claims (Python) | two workers may both get 200 | one does |
| claim lock held by somebody else | happens by itself | only by `claims.hold(event_id)` |
| restart of the plane | state is in Postgres | state is in the process; `stop()` and `start()` keep it |
"""

from __future__ import annotations

from noetl_worker.dev.nats_server import NatsServer
from noetl_worker.dev.plane import DevControlPlane, RawCommand
from noetl_worker.dev.playbook import Playbook, load_playbook
from noetl_worker.dev.settings import PlaneSettings

__all__ = ["DevControlPlane", "NatsServer", "PlaneSettings", "Playbook", "RawCommand", "load_playbook"]

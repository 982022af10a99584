"""A control plane and a NATS server for `noetl-worker dev` and for tests.

The control plane is a stand-in for the real ones. Tests compare its answers (statuses, keys, types) with recordings of
the real planes (tests/compat), and its claims with claims recorded after the same events (tests/compat/values; known
differences are in claims.yaml). These differences are intended:

differs-from-upstream:

| what | the real plane | here |
|---|---|---|
| an end after a list of tasks or after the first command (Python) | only inferred as complete | inferred, and ended |
| templates | each plane's own engine | ours, with each plane's rules (`rendering`) |
| single events `call.done`, then `command.completed` (Python v4.0.0) | steps run, the execution never ends | it ends |
| a parallel loop with a failed item (Python) | stays open, with `failed: true` | ends FAILED after its last item |
| `cases` of a step or tool | rendered with everything else, or dropped | reach the worker as written |
| simultaneous claims (Python) | two workers may both get 200 | only one worker gets 200 |
| claim locked by another worker | may happen at any time | happens only after `claims.hold(event_id)` |
| restart of the plane | state is in Postgres | state is in the process; `stop()` and `start()` keep it |
"""

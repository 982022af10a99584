"""A control plane and a NATS server for `noetl-worker dev` and for tests.

The control plane is a stand-in for the real ones. Tests compare its answers (statuses, keys, types) with recordings of
the real planes (tests/compat), and its claims with those recorded after the same events (tests/compat/values; known
differences are in claims.yaml). These differences are intended:

differs-from-upstream:

| what | the real plane | here |
|---|---|---|
| an end with a list-valued tool or at the first command (Python) | inferred as complete | the same, and it has ended |
| templates | each plane's own engine | ours, with each plane's rules (`rendering`) |
| single events `call.done`, then `command.completed` (Python v4.0.0) | steps run, the execution never ends | it ends |
| a parallel loop with a failed item (Python) | stays open, with `failed: true` | ends FAILED once all are back |
| `cases` of a step or tool | rendered with everything else, or dropped | reach the worker as written |
| simultaneous claims (Python) | two workers may both get 200 | one does |
| claim lock held by somebody else | happens by itself | only by `claims.hold(event_id)` |
| restart of the plane | state is in Postgres | state is in the process; `stop()` and `start()` keep it |
"""

"""A control plane and a NATS server for `noetl-worker dev` and for tests.

This control plane imitates the real ones. Tests compare its answers (statuses, keys, types) with recordings of the real
planes (tests/compat). Tests also compare its answers to claims with a real plane's answers after the same events
(tests/compat/values). claims.yaml lists the values that differ. The following differences are intended:

differs-from-upstream:

| what | the real plane | here |
|---|---|---|
| execution of a single step succeeds (Python) | no end event, status inferred | no end event, COMPLETED |
| execution that ends with a list of tasks succeeds (Python) | no end event, status inferred | no end event, COMPLETED |
| templates | each plane's own engine | ours, with each plane's rules (`rendering`) |
| `call.done`, then `command.completed`, unbatched (Python v4.0.0) | steps run, execution never ends | execution ends |
| a parallel loop with a failed item (Python) | stays open, with `failed: true` | ends FAILED after its last item |
| `cases` of a step or tool | rendered with everything else, or dropped | reach the worker as written |
| simultaneous claims (Python) | two workers may both get 200 | only one worker gets 200 |
| claim locked by another worker | may happen at any time | happens only after `claims.hold(event_id)` |
| restart of the plane | state is in Postgres | state is in the process; `stop()` and `start()` keep it |
"""

"""What the engine benchmarks call, and with what: used by bench_engine.py, check_gates.py and the gates' own test.

As a program, `workload.py ENGINE CALL TIMES` makes one call so many times: what callgrind counts.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from noetl_worker.models import FitRules

NOTIFICATION: Final = (
    b'{"execution_id":767498442217095171,"event_id":767498442485530631,"command_id":767498442485530630,'
    b'"step":"load_orders:task_sequence","server_url":"http://noetl.noetl.svc:8082"}'
)
"""168 bytes, as the Python plane publishes it."""

RULES: Final = FitRules(secrets=("hunter2hunter2", "another-secret"))
VARIABLES: Final = b'{"region":"eu","limit":10}'
SLOWED: Final = "NOETL_WORKER_BENCH_SLOWED"
"""Each call of the fast engine is made so many times: the test of the gates shows that they notice."""


def result(size: int) -> bytes:
    """A tool result of rows, about `size` bytes of compact JSON."""
    rows: list[dict[str, Any]] = []
    while True:
        number = len(rows)
        rows.append(
            {
                "id": number,
                "name": f"customer {number}",
                "amount": number * 1.25,
                "paid": number % 2 == 0,
                "note": "some words as people write them",
                "created_at": "2026-01-02T03:04:05Z",
            }
        )
        if len(rows) * 135 >= size:
            break
    whole = {"status": "ok", "row_count": len(rows), "data": {"rows": rows}, "elapsed_ms": 12.5}
    return json.dumps(whole, separators=(",", ":")).encode()


def cases() -> bytes:
    """20 cases of 3 conditions, none of which holds: the whole table is gone through."""
    return json.dumps(
        [
            {
                "when": [
                    {"left": "result.status", "op": "eq", "right": "ok"},
                    {"left": "result.row_count", "op": "gt", "right": 0},
                    {"left": "result.data.rows.0.name", "op": "contains", "right": f"nobody {number}"},
                ],
                "then": {"exit": {"status": f"s{number}"}},
            }
            for number in range(20)
        ]
    ).encode()


def engine(name: str) -> Any:
    return importlib.import_module("noetl_worker._core" if name == "rust" else "noetl_worker.engine.pure.lib")


def call(engine_name: str, name: str) -> Callable[[], Any]:
    """Return a call without arguments: decode, match_<bytes>, fit_<bytes>, noop_<bytes>, or nothing (the loop only)."""
    chosen = engine(engine_name)
    kind, _, size = name.partition("_")
    if kind == "nothing":
        return lambda: None
    if kind == "decode":
        made: Callable[[], Any] = lambda: chosen.decode_notification(NOTIFICATION)  # noqa: E731
    elif kind == "noop":
        made = tool_call(chosen, int(size))
    elif kind == "match":
        table, data = chosen.compile_cases(cases()), result(int(size))
        made = lambda: table.match(VARIABLES, data)  # noqa: E731
    else:
        data = result(int(size))
        made = lambda: chosen.fit_result(data, RULES)  # noqa: E731
    return _slowed(made) if engine_name == "rust" else made


def tool_call(chosen: Any, size: int) -> Callable[[], Any]:
    """What the worker adds around a tool that does nothing: its config checked and rendered, its result fitted.

    The variables are about `size` bytes of JSON; the templates are as a playbook has them. Without an event loop:
    `noop` waits for nothing, so one step of its coroutine is the whole call.
    """
    from noetl_worker.testing import tool_context
    from noetl_worker.text import json_text  # here: the engine's calls are counted in a process that needs none of it
    from noetl_worker.tools.registry import Registry

    variables = {"workload": json.loads(result(size)), "ctx": {"region": "eu"}, "load": {"status": "ok"}}
    config = {
        "kind": "noop",
        "message": "loaded {{ load.status }} for {{ ctx.region | upper }}",
        "result": {"rows": "{{ workload.data.rows }}", "count": "{{ workload.row_count + 1 }}"},
        "input": {"region": "{{ ctx.region }}"},
        "timeout": 30,
        "spec": None,
        "output": None,
    }
    registry = Registry(plugins=False)
    context = tool_context(variables=variables, registry=registry)

    def made() -> Any:
        running = registry.prepare("noop", config, context).run()
        try:
            running.send(None)
        except StopIteration as done:
            return chosen.fit_result(json_text.dumps(done.value.data), RULES)
        raise AssertionError("noop waited for something")

    return made


def _slowed(made: Callable[[], Any]) -> Callable[[], Any]:
    times = int(os.environ.get(SLOWED, "1"))
    if times == 1:
        return made

    def slowed() -> Any:
        for _ in range(times - 1):
            made()
        return made()

    return slowed


def hand_written_loop(size: int) -> Callable[[], Any]:
    """What a worker without an engine would do: orjson, and a loop over parsed cases."""
    orjson = importlib.import_module("orjson")
    data, listed = result(size), json.loads(cases())
    operators: dict[str, Callable[[Any, Any], bool]] = {
        "eq": lambda left, right: left == right,
        "gt": lambda left, right: float(left) > float(right),
        "contains": lambda left, right: right in left,
    }
    parsed = [
        ([(one["left"].split(".")[1:], operators[one["op"]], one["right"]) for one in case["when"]], case["then"])
        for case in listed
    ]

    def loop() -> Any:
        document = orjson.loads(data)
        for conditions, action in parsed:
            for path, operator, right in conditions:
                value = document
                for segment in path:
                    value = value[int(segment)] if isinstance(value, list) else value.get(segment)
                if not operator(value, right):
                    break
            else:
                return action
        return None

    return loop


if __name__ == "__main__":
    made = call(sys.argv[1], sys.argv[2])
    for _ in range(int(sys.argv[3])):
        made()

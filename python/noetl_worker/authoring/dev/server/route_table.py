"""The routes of the development plane, each with the function that answers it (protocol/README.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from noetl_worker.authoring.dev.database import MAX_ID
from noetl_worker.authoring.dev.server.answers import HttpAnswer, Refused, answer, detail, invalid, rust_error
from noetl_worker.authoring.dev.server.claims import claim_body, command_body
from noetl_worker.authoring.dev.server.routes import Handler, RouteCall
from noetl_worker.authoring.dev.server.state import PlaneState
from noetl_worker.models.wire import Dialect, fields_of

RUST_VERSION: Final = "3.54.0"
"""Version of the Rust plane in the recordings. Workers recognise a Rust plane by `version` in its health answer
(protocol/registry.md#identity)."""


def route_table(plane: PlaneState) -> Mapping[str, Mapping[str, Handler]]:
    """Return the handlers by path template and method. Templates are tried in order, so busy routes come first."""
    results, variables, inspection = plane.results, plane.variables, plane.inspection
    prefix = plane.settings.result_prefix
    # The Rust plane deregisters only by DELETE (recorded: deregister-post).
    to_deregister = ("DELETE",) if plane.dialect is Dialect.RUST else ("DELETE", "POST")
    return {
        "/api/commands/{event_id}/claim": {"POST": lambda call: _claim(plane, call)},
        "/api/events/batch": {"POST": lambda call: _batch(plane, call)},
        "/api/events": {"POST": lambda call: _event(plane, call)},
        "/api/commands/{event_id}": {"GET": lambda call: _command(plane, call)},
        "/api/events/batch/{request_id}/status": {
            "GET": lambda call: plane.batches.status_route(call.path["request_id"])
        },
        "/api/execute": {"POST": lambda call: plane.executions.execute_route(call.body)},
        "/api/executions/{execution_id}/status": {"GET": lambda call: inspection.status_route(call.execution_id)},
        "/api/executions/{execution_id}/cancellation-check": {
            "GET": lambda call: plane.executions.cancellation_route(call.execution_id)
        },
        "/api/executions/{execution_id}/cancel": {
            "POST": lambda call: plane.executions.cancel_route(call.execution_id, call.body)
        },
        "/api/executions/{execution_id}/events": {
            "GET": lambda call: inspection.events_route(call.execution_id, call.query)
        },
        "/api/executions/{execution_id}": {"GET": lambda call: inspection.detail_route(call.execution_id, call.query)},
        "/api/worker/pool/register": {"POST": lambda call: plane.registry.register(call.body, call.raw)},
        "/api/worker/pool/heartbeat": {"POST": lambda call: plane.registry.heartbeat(call.body)},
        "/api/worker/pool/deregister": dict.fromkeys(
            to_deregister, lambda call: plane.registry.deregister(call.body, call.raw)
        ),
        "/api/worker/pools": {"GET": lambda call: plane.registry.pools()},
        "/api/vars/{execution_id}": {
            "GET": lambda call: variables.read_all(call.execution_id),
            "POST": lambda call: variables.write(call.execution_id, call.body, call.raw),
            "DELETE": lambda call: variables.delete_all(call.execution_id),
        },
        "/api/vars/{execution_id}/{name}": {
            "GET": lambda call: variables.read(call.execution_id, call.path["name"]),
            "DELETE": lambda call: variables.delete(call.execution_id, call.path["name"]),
        },
        f"{prefix}/result/resolve": {"GET": lambda call: results.resolve_route(call.query.get("ref"))},
        f"{prefix}/result/{{execution_id}}": {
            "PUT": lambda call: results.put_route(call.execution_id, fields_of(call.body))
        },
        f"{prefix}/result/{{execution_id}}/{{step}}": {"GET": lambda call: _result(plane, call)},
        "/api/credentials": {"POST": lambda call: plane.credentials.write(call.body)},
        "/api/credentials/{name}": {"GET": lambda call: _credential(plane, call)},
        "/api/keychain/{catalog_id}/{name}": {
            "GET": lambda call: _keychain_read(plane, call),
            "POST": lambda call: plane.keychain.write(int(call.path["catalog_id"]), call.path["name"], call.body),
        },
        "/api/catalog/register": {"POST": lambda call: plane.catalog.register(call.body)},
        "/api/catalog/list": dict.fromkeys(("GET", "POST"), lambda call: plane.catalog.list_route()),
        "/api/catalog/resource": {"POST": lambda call: plane.catalog.resource_route(call.body)},
        "/api/pool/status": {"GET": lambda call: _pool(plane)},
        "/api/health": {"GET": lambda call: _health(plane)},
        "/health": {"GET": lambda call: answer({"status": "ok"})},
        "/demo/items": {"GET": lambda call: _demo_items()},
    }


def _number(call: RouteCall, name: str) -> int:
    given = call.path[name]
    if not given.isdecimal():
        text = "Input should be a valid integer, unable to parse string as an integer"
        raise invalid("int_parsing", ["path", name], text, given)
    return int(given)


def _event_id(call: RouteCall) -> int:
    event_id = _number(call, "event_id")
    if event_id > MAX_ID:
        raise Refused(detail(404, f"command not found: {event_id}"))
    return event_id


def _claim(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    event_id = _event_id(call)
    return plane.claims.claim(event_id, claim_body(call.body, call.raw, plane.dialect))


def _command(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    event_id = _event_id(call)
    row = plane.log.command(event_id)
    if row is not None:
        return answer(command_body(row))
    text = f"command not found: {event_id}"
    return rust_error(404, text) if plane.dialect is Dialect.RUST else detail(404, text)


def _event(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    if plane.dialect is Dialect.RUST:
        return plane.rust_events.single(call.body, call.raw)
    return plane.python_events.single(call.body)


def _batch(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    if plane.dialect is Dialect.RUST:
        return plane.rust_events.batch(call.body, call.raw)
    key = call.headers.get("idempotency-key") or call.headers.get("x-idempotency-key")
    return plane.batches.accept(call.body, call.raw, key)


def _result(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    is_resolved = call.query.get("resolve", "true").lower() != "false"
    return plane.results.get_route(call.execution_id, call.path["step"], is_resolved=is_resolved)


def _credential(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    with_data = call.query.get("include_data", "").lower() in ("true", "1", "yes")
    name = call.path["name"]
    entry = plane.keychain.resolved(name) if "execution_id" in call.query else None
    return plane.credentials.read(name, with_data=with_data, entry=entry)


def _keychain_read(plane: PlaneState, call: RouteCall) -> HttpAnswer:
    catalog_id, scope = _number(call, "catalog_id"), call.query.get("scope_type", "global")
    return plane.keychain.read(catalog_id, call.path["name"], scope, call.query.get("execution_id"))


def _pool(plane: PlaneState) -> HttpAnswer:
    low, high = (0, 5) if plane.dialect is Dialect.RUST else (2, 32)
    size = max(low, 2)
    return answer(
        {
            "pool_min": low,
            "pool_max": high,
            "pool_size": size,
            "pool_available": size,
            "requests_waiting": 0,
            "utilization": 0.0,
            "slots_available": size,
            "status": "ok",
        }
    )


def _health(plane: PlaneState) -> HttpAnswer:
    if plane.dialect is Dialect.PYTHON:
        return answer({"status": "ok"})
    return answer(
        {
            "status": "ok",
            "database": "connected",
            "nats": "connected" if plane.dispatcher.publisher is not None else "disconnected",
            "uptime_seconds": int(time.time() - plane.started_at),
            "version": RUST_VERSION,
        }
    )


def _demo_items() -> HttpAnswer:
    """Return the answer of /demo/items, a small JSON document, so that the demo playbooks need no other server."""
    names = ("apples", "pears", "plums", "quinces")
    items = [{"id": number, "name": name, "price": 2.5 * number} for number, name in enumerate(names, 1)]
    return answer({"fruits": items, "count": len(items)})

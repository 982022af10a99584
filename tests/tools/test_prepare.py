"""What can be told from a config alone is refused by `prepare`, before `command.started`; what is not read is told."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

from .refused_configs import GIVEN, OF_OTHER_MODULES, PUT, TABLES

REGISTRY = Registry(plugins=False)


def refusal(kind: str, config: Any, **variables: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        REGISTRY.prepare(kind, config, tool_context(registry=REGISTRY, variables=variables))
    assert caught.value.kind == "configuration"
    return caught.value


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [(kind, config, message) for kind, table in TABLES.items() for config, message in table],
    ids=[f"{kind}-{number}" for kind, table in TABLES.items() for number in range(len(table))],
)
def test_config_that_cannot_work_is_refused_before_the_start(kind: str, config: dict[str, Any], message: str) -> None:
    said = str(refusal(kind, {**GIVEN.get(kind, {}), **config}, base="h:80"))
    inner = any(message.startswith(prefix) for prefix in OF_OTHER_MODULES)
    assert said == (message if inner else f"{kind}: {message}")


@pytest.mark.parametrize(
    ("address", "secret"), [("postgresql://u:hush@[h/d", "hush"), ("postgresql://u:se%zzcret@h/d", "cret")]
)
def test_connection_string_is_read_before_the_start_and_not_shown(address: str, secret: str) -> None:
    pytest.importorskip("psycopg", reason="libpq reads it")
    error = refusal("postgres", {"query": "select 1", "connection_string": address})
    assert str(error) == (
        "postgres: the connection string does not parse: give postgresql://USER:PASSWORD@HOST:5432/DATABASE "
        "(%-encoded where a part holds : / @ # or %), or key=value pairs"
    )
    assert secret not in str(error.__cause__)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("postgres", {"query": "select 1", "auth": "pg"}),
        ("postgres", {"query": "select 1", "auth": {"source": "credential", "key": "pg"}}),
        ("postgres", {"query": "select 1", "auth": {"pg": {"source": "credential", "key": "pg"}}}),
        ("snowflake", {"query": "select 1", "auth": {"credential": "sf", "role": "r"}}),
        ("duckdb", {"query": "select 1", "auth": {"a": {"source": "credential", "key": "x"}, "b": "y"}}),
        ("http", {"url": "http://h/", "auth": {"source": "credential", "key": "x"}}),
        ("http", {"url": "http://h/", "auth": {"a": {"credential": "x"}, "b": {"source": "secret", "key": "K"}}}),
        ("nats", {**PUT, "auth": {"credential": "n"}}),
        ("postgres", {"query": "select 1", "auth": {"source": "credential", "alias": "pg"}}),
        ("nats", {**PUT, "auth": {"mine": {"source": "credential", "alias": "n"}}}),
        ("python", {"code": "1", "auth": {"gcs": {"key": "alias", "service": "gcs"}}}),
        ("mcp", {"tool": "t"}),
        ("container", {"image": "i", "auth": {"source": "credential", "key": "k8s"}}),
    ],
)
def test_what_a_credential_or_the_worker_may_have_is_not_asked_for_early(kind: str, config: dict[str, Any]) -> None:
    context = tool_context(registry=REGISTRY)  # it knows no credential
    assert REGISTRY.prepare(kind, config, context).warnings == ()


REF = "noetl://execution/1/result/a/b"
IGNORED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("result_fetch", {"ref": REF, "prefer": "http"}, []),
    (
        "result_fetch",
        {"ref": REF, "prefer": "flight", "flight_endpoint": "h:1", "bearer_token": "tok"},
        [
            "field 'prefer' is ignored: results are fetched over HTTP",
            "field 'flight_endpoint' is ignored: results are fetched over HTTP",
            "field 'bearer_token' is ignored: the worker's own access serves",
        ],
    ),
    ("nats", {**PUT, "url": "nats://h", "revision": 3, "name": "label"}, []),
    (
        "nats",
        {**PUT, "url": "nats://h", "ttl": 5, "subject": "s"},
        ["unknown field 'ttl' is ignored", "field 'subject' is ignored: kv_put does not read it"],
    ),
    (
        "nats",
        {"operation": "kv_purge", "bucket": "b", "key": "k", "url": "nats://h", "revision": 3},
        ["field 'revision' is ignored: kv_purge does not read it"],
    ),
    ("artifact", {"uri": "http://h/x", "auth": "a", "headers": {"X": 1}, "sha256": "0"}, []),
    (
        "artifact",
        {"uri": "/tmp/x", "auth": "a", "headers": {"X": 1}, "content_type": "text/plain", "compress": True},
        [
            "field 'auth' is ignored: it is for http(s)",
            "field 'headers' is ignored: it is for http(s)",
            "field 'content_type' is ignored: it is for a put to http(s)",
            "field 'compress' is ignored: it is for a put",
        ],
    ),
    (
        "artifact",
        {"action": "put", "uri": "/tmp/x", "data": 1, "sha256": "0"},
        ["field 'sha256' is ignored: it is for a get"],
    ),
    ("secrets", {"name": "n", "provider": "google", "project": "p", "auth": "a"}, []),
    (
        "secrets",
        {"name": "n", "provider": "env", "project": "p", "auth": "a"},
        ["field 'project' is ignored: it is for google", "field 'auth' is ignored: it is for google"],
    ),
    (
        "subscription",
        {"source": "nats", "stream": "S", "consumer": "c", "url": "nats://h", "nack_delay_ms": 5},
        ["field 'nack_delay_ms' is ignored: poll does not read it"],
    ),
    (
        "mcp",
        {"endpoint": "http://h", "method": "tools/list", "tool": "t"},
        ["field 'tool' is ignored: tools/list does not send it"],
    ),
    (
        "transfer",
        {
            "source": {"type": "duckdb", "query": "select 1", "role": "r", "method": "GET"},
            "target": {"type": "duckdb", "db_path": "f", "table": "t", "schema": "main", "host": "h", "role": "r"},
        },
        [
            "source: field 'role' is ignored: duckdb does not read it",
            "source: field 'method' is ignored: duckdb does not read it",
            "target: field 'host' is ignored: duckdb does not read it",
            "target: field 'role' is ignored: duckdb does not read it",
        ],
    ),
    (
        "transfer",
        {
            "source": {"type": "postgres", "host": "{{ h }}", "query": "select 1", "zzz": "x"},
            "target": {"type": "postgres", "host": "h", "table": "t", "query": "insert", "usr": "u"},
        },
        [
            "source: unknown field 'zzz' is ignored",
            "target: field 'query' is ignored: a target has none",
            "target: unknown field 'usr' is ignored; did you mean 'user'?",
        ],
    ),
    (
        "transfer",
        {
            "source": {"kind": "postgres", "db_host": "h", "query": "select 1", "schema": "s"},
            "target": {"type": "duckdb", "connection": "f", "table": "t", "key": [], "mapping": {"a": "b"}},
        },
        [],
    ),
]


@pytest.mark.parametrize(("kind", "config", "told"), IGNORED)
def test_field_that_is_not_read_is_reported(kind: str, config: dict[str, Any], told: list[str]) -> None:
    texts = [f"{kind}: {text}" for text in told]
    warnings = REGISTRY.prepare(kind, config, tool_context(registry=REGISTRY)).warnings
    assert [str(warning) for warning in warnings] == texts

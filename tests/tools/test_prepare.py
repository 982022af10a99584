"""What can be told from a config alone is refused by `prepare`, before `command.started`; what is not read is told."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)
AUTH_TYPES = "bearer, basic, api_key, header, headers, oauth2_client_credentials, gcp_adc, service_account, none"
NO_POSTGRES = "no connection; give 'auth', 'host' or 'connection_string'"
NO_NATS = "a connection requires 'url', or 'auth' with the alias of a credential"
TO_FILE = {"target": {"type": "duckdb", "database": "f.duckdb", "table": "t"}}
FROM_FILE = {"source": {"type": "file", "path": "a.csv"}}


def refusal(kind: str, config: Any, **variables: Any) -> str:
    with pytest.raises(ToolError) as caught:
        REGISTRY.prepare(kind, config, tool_context(registry=REGISTRY, variables=variables))
    assert caught.value.kind == "configuration"
    return str(caught.value)


PYTHON: list[tuple[dict[str, Any], str]] = [
    ({}, "no code; give 'code', 'script' or 'code_b64'"),
    ({"code": " \n"}, "no code; give 'code', 'script' or 'code_b64'"),
    ({"code": "{{ missing }}"}, "no code; give 'code', 'script' or 'code_b64'"),
    ({"script": {"source": {"code": ""}}}, "no code; give 'code', 'script' or 'code_b64'"),
    ({"code_b64": "%"}, "'code_b64' is not base64 of UTF-8 text: Only base64 data is allowed"),
    ({"script": {}}, "'script' needs 'uri', or 'source' with 'code'"),
    (
        {"script": {"source": {"type": "s3"}}},
        "'script' needs 'uri', or 'source' with 'code'",
    ),
    (
        {"script": {"source": {"type": "ftp", "code": "result = 1"}}},
        "script.source.type 'ftp' is none of inline, file, http, gcs, s3",
    ),
    ({"code": "1", "auth": {"key": {}}}, "auth: 'auth': 'key' must be the alias of a credential"),
    ({"code": "1", "auth": {"pg": {"key": ["a"]}}}, "auth: 'pg': 'key' must be the alias of a credential"),
    ({"code": "1", "deps": {"sys_path": 1}}, "deps: 'sys_path' must be a directory or a list of them, not int"),
    (
        {"script": "ftp://b/a.py"},
        "script address 'ftp://b/a.py': a path, file://, http(s)://, gs:// or s3:// is needed",
    ),
    ({"script": "gs://b"}, "script address 'gs://b': gs://<bucket>/<object> is needed"),
    (
        {"script": {"uri": "http://h/a.py", "source": {"timeout": "soon"}}},
        "script.source.timeout='soon' is not a time: give seconds above 0, or a text like 30s or 2m",
    ),
    (
        {"code": "1", "libs": {"np": {"from": "numpy"}}},
        "libs: 'np' must be a module or {from, import}, not {'from': 'numpy'}",
    ),
    (
        {"code": "1", "deps": {"pip": ["x"]}},
        "deps: 'pip' is not supported; install beforehand and give 'venv_path' or 'sys_path'",
    ),
    ({"code": "1", "auth": {"pg": 5}}, "auth: 'pg' must be an alias or an object, not int"),
    (
        {"code": "1", "auth": {"source": "credential", "service": "s"}},
        "auth: 's' needs 'key': the alias of a credential",
    ),
]

URL = {"url": "http://h/"}
HTTP: list[tuple[dict[str, Any], str]] = [
    (
        {"url": "{{ base }}/x"},
        "the request to 'h:80/x' cannot be built: an address starts with http:// or https:// and a host",
    ),
    ({**URL, "method": "FETCH"}, "method 'FETCH' is none of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
    ({**URL, "body_b64": "%"}, "'body_b64' is not base64: Only base64 data is allowed"),
    ({**URL, "data": {"query": "a=1"}}, "'data.query' must be an object, not str"),
    ({**URL, "files": {"f": [{"name": "x"}]}}, "files: 'f' needs one of 'path', 'content', 'content_b64'"),
    ({**URL, "files": {"f": {"content_b64": "%"}}}, "'files.f.content_b64' is not base64: Only base64 data is allowed"),
    ({**URL, "auth": {"type": "kerberos"}}, f"auth type 'kerberos' is not supported; supported: {AUTH_TYPES}"),
    ({**URL, "auth": {"name": "x"}}, f"auth type None is not supported; supported: {AUTH_TYPES}"),
    ({**URL, "auth": {"mine": "alias"}}, f"auth needs 'type'; supported: {AUTH_TYPES}"),
    (
        {**URL, "auth": {"source": "env", "key": "K"}},
        "auth source 'env' is not supported; use credential, secret or inline",
    ),
    ({**URL, "auth": {"provider": "secret_manager"}}, "auth from secret_manager needs 'key': projects/<p>/secrets/<s>"),
    ({**URL, "client_key": "k.pem"}, "'client_key' is the key of a 'client_cert'; give that too"),
    (
        {**URL, "proxy": "ftp://u:pw@h"},
        "'proxy' 'ftp://h' cannot be used: Unknown scheme for proxy URL URL('ftp://u:[secure]@h')",
    ),
    ({**URL, "retry": 0}, "retry must be a whole number from 1, not 0"),
    ({**URL, "retry": {"backoff": "quick"}}, "retry.backoff 'quick' is none of none, fixed, linear, exponential"),
    (
        {**URL, "retry": {"on_success": {"while": True, "next_call": {"parms": {}}}}},
        "retry.on_success.next_call: unknown key 'parms'; did you mean 'params'?",
    ),
]

POSTGRES: list[tuple[dict[str, Any], str]] = [
    ({}, NO_POSTGRES),
    ({"user": "u", "database": "d"}, NO_POSTGRES),
    ({"host": "{{ missing }}"}, NO_POSTGRES),
    ({"auth": {"user": "u", "password": "p"}}, NO_POSTGRES),
    (
        {"auth": {"a": {"host": "h"}, "b": {"host": "i"}}},
        "auth holds several credentials; name the one to use: auth: <alias>",
    ),
    (
        {"host": "h", "sslmode": "on"},
        "'sslmode' is 'on': give one of disable, allow, prefer, require, verify-ca, verify-full",
    ),
    (
        {"host": "h", "schema": "a b,c"},
        "'schema' is 'a b,c': give names with commas between them, in double quotes where SQL needs them",
    ),
    (
        {"host": "h", "query": "select $1, %s", "params": [1, 2]},
        "select $1, %s: it has place holders of two kinds, $1 and %s: write all of them as $1, $2 "
        "(as an operator, put a blank after the percent sign)",
    ),
]

SNOWFLAKE: list[tuple[dict[str, Any], str]] = [
    ({}, "no 'account'; give it, or 'auth' with a credential of type snowflake"),
    ({"account": "a"}, "no 'user'; give it, or 'auth' with a credential of type snowflake"),
    ({"account": "a", "user": "u"}, "Password is required for Snowflake authentication, or a 'private_key'"),
    ({"auth": {"sf_account": "a"}}, "no 'user'; give it, or 'auth' with a credential of type snowflake"),
]

DUCKDB: list[tuple[dict[str, Any], str]] = [
    ({"auth": {"pg": 5}}, "auth 'pg' must be an alias or an object, not int"),
    (
        {"auth": {"type": "ftp", "user": "u"}},
        "auth 'noetl' is of type 'ftp'; DuckDB has secrets for gcs, http, huggingface, mysql, postgres, r2, s3",
    ),
    ({"auth": {"type": "http"}}, "auth 'noetl' has nothing of a http credential in it: token, scope"),
    ({"extensions": ["a-b"]}, "extension 'a-b' is no name; write `name` or `name from repository`"),
]

LAKE = {"data_path": "d"}
DUCKLAKE: list[tuple[dict[str, Any], str]] = [
    ({**LAKE, "catalog": "ducklake:"}, "no catalog; give 'catalog_connection', or 'auth' of type postgres or mysql"),
    ({**LAKE, "catalog": "postgresql://h:port/d"}, "the port of 'catalog_connection' is no number"),
    ({**LAKE, "catalog": "postgres:host=h sslmode=x"}, "'catalog_connection' has sslmode: DuckDB cannot pass it on"),
    ({**LAKE, "catalog": "f", "extensions": [""]}, "extension '' is no name; write `name` or `name from repository`"),
]

TRANSFER: list[tuple[dict[str, Any], str]] = [
    ({**TO_FILE, "source": {"type": "postgres", "query": "select 1"}}, f"source: {NO_POSTGRES}"),
    ({**FROM_FILE, "target": {"type": "postgres", "table": "t"}}, f"target: {NO_POSTGRES}"),
    (
        {**FROM_FILE, "target": {"type": "snowflake", "table": "t"}},
        "target: no 'account'; give it, or 'auth' with a credential of type snowflake",
    ),
    (
        {**FROM_FILE, "target": {"type": "snowflake", "table": "t", "auth": "sf"}, "mode": "upsert"},
        "a snowflake target has no unique key to go by; give 'key' for upsert",
    ),
    (
        {**TO_FILE, "source": {"type": "duckdb", "database": "./f.duckdb", "query": "select 1"}},
        "source and target are one DuckDB file; use kind duckdb with INSERT INTO ... SELECT",
    ),
    (
        {**FROM_FILE, "target": {"type": "duckdb", "database": "f", "table": "t", "auth": {"x": 1}}},
        "target: auth 'x' must be an alias or an object, not int",
    ),
]

JOB = {"image": "i"}
VOLUME_FORM = "each of volumes needs 'name' and one of empty_dir, persistent_volume_claim, config_map, secret"
CONTAINER: list[tuple[dict[str, Any], str]] = [
    ({"image": " "}, "image is required"),
    ({**JOB, "namespace": "My Space"}, "'namespace' 'My Space' is none: small letters, digits and -, at most 63"),
    ({**JOB, "backoff_limit": -1}, "'backoff_limit' must be 0 or more, not -1"),
    ({**JOB, "ttl_seconds_after_finished": -1}, "'ttl_seconds_after_finished' must be 0 or more, not -1"),
    ({**JOB, "resources": {"cpu": 1}}, "resources: 'cpu' is none of requests, limits, claims"),
    ({**JOB, "resources": {"limits": "1Gi"}}, "resources: 'limits' must be an object like {cpu: 500m, memory: 1Gi}"),
    ({**JOB, "env": {"A=B": "c"}}, "env: 'A=B' cannot be a variable: no '=' and no control character may be in it"),
    ({**JOB, "volumes": [{"name": "v", "host_path": {"path": "/"}}]}, VOLUME_FORM),
    ({**JOB, "volumes": [{"empty_dir": {}, "secret": {}}]}, VOLUME_FORM),
    ({**JOB, "volumes": [{"name": "v", "secret": "s"}]}, "volume 'v': 'secret' must be an object"),
    ({**JOB, "volumes": [{"name": "v", "config_map": {}}]}, "volume 'v': 'config_map' needs 'name'"),
    ({**JOB, "volume_mounts": [{"name": "v"}]}, "each of volume_mounts needs 'name' and 'mount_path'"),
    (
        {**JOB, "volumes": [{"name": "v", "empty_dir": None}], "volume_mounts": [{"name": "w", "mount_path": "/w"}]},
        "volume_mounts: there is no volume 'w'; there are: v",
    ),
    ({**JOB, "auth": {"token": "t"}}, "the credential needs 'url', the address of the Kubernetes API"),
    ({"runtime": {"image": 5}}, "runtime.image must be text"),
    ({"runtime": {"image": "i", "env": "A=b"}}, "runtime.env must be an object, or a list of objects with 'name'"),
    ({"runtime": {"image": "i", "resources": []}}, "runtime.resources must be an object"),
]

SCRIPT: list[tuple[dict[str, Any], str]] = [
    ({"script": {"content": " "}}, "script: the script is empty"),
    ({"script": {"type": "inline"}}, "python: 'script' needs 'uri', or 'source' with 'code'"),
    ({"job": {"image": ""}}, "script: job: 'image' is empty"),
    ({"job": {"timeout": -5}}, "script: job: 'timeout' must be above 0 seconds, not -5"),
    ({"job": {"backoffLimit": -1}}, "script: job: 'backoff_limit' must be 0 or more, not -1"),
    ({"job": {"resources": {"memory": "1Gi"}}}, "script: job: resources: 'memory' is none of requests, limits, claims"),
    ({"job": {"env": ["A"]}}, "script: job: field 'env' must be an object, not list"),
    (
        {"job": {"image_pull_policy": "Often"}},
        "script: job: field 'image_pull_policy' must be one of 'Always', 'IfNotPresent', 'Never', not 'Often' (str)",
    ),
]

PUT = {"operation": "kv_put", "bucket": "b", "key": "k", "value": "v"}
NATS: list[tuple[dict[str, Any], str]] = [
    (PUT, NO_NATS),
    ({**PUT, "auth": {"user": "u"}}, NO_NATS),
    ({**PUT, "url": "{{ missing }}"}, NO_NATS),
    (
        {**PUT, "url": "nats://h", "key": "a b"},
        "key 'a b' is none: letters, digits and - / _ = . with no dot at either end",
    ),
    (
        {**PUT, "url": "nats://h", "key": ".a"},
        "key '.a' is none: letters, digits and - / _ = . with no dot at either end",
    ),
    ({**PUT, "url": "nats://"}, "url 'nats://' is none: it looks like nats://host:4222"),
    (
        {**PUT, "url": "nats://h", "encoding": "base64", "value": "%"},
        "with encoding base64 the data must be base64 text",
    ),
]

SUBSCRIPTION: list[tuple[dict[str, Any], str]] = [
    ({"source": "nats", "stream": "S", "consumer": "c"}, NO_NATS),
    (
        {"source": "nats", "operation": "nack", "ack_ids": ["$JS.ACK.x"], "nack_delay_ms": -1, "url": "nats://h"},
        "'nack_delay_ms' must be 0 or more, not -1",
    ),
]

MCP: list[tuple[dict[str, Any], str]] = [
    (
        {"endpoint": "h:1/mcp", "tool": "t"},
        "mcp: endpoint 'h:1/mcp' is no address: it starts with http:// or https:// and a host",
    ),
    (
        {"endpoint": "http://h", "tool": "t", "auth": {"type": "x"}},
        f"http: auth type 'x' is not supported; supported: {AUTH_TYPES}",
    ),
]

ARTIFACT: list[tuple[dict[str, Any], str]] = [
    ({"uri": "file://other/x"}, "artifact: 'file://other/x' names the host 'other'; write file:///absolute/path"),
    ({"uri": "http://"}, "artifact: uri 'http://' is no address: it has no host"),
    (
        {"action": "put", "data": 1, "uri": "noetl://x"},
        "artifact: the control plane names its references: put without 'uri', and give 'name'",
    ),
    (
        {"action": "put", "data": "%", "encoding": "base64", "uri": "/tmp/x"},
        "artifact: with encoding base64 the data must be base64 text",
    ),
    ({"uri": "http://h/x", "auth": {"type": "x"}}, f"http: auth type 'x' is not supported; supported: {AUTH_TYPES}"),
]

SECRETS: list[tuple[dict[str, Any], str]] = [
    (
        {"name": "projects/p/x"},
        "'projects/p/x' is no name of a Google secret: projects/<project>/secrets/<name>[/versions/<version>]",
    ),
]

GIVEN: dict[str, dict[str, Any]] = {
    "postgres": {"query": "select 1"},
    "snowflake": {"query": "select 1"},
    "duckdb": {"query": "select 1"},
    "ducklake": {"query": "select 1"},
    "script": {"script": "print(1)\n"},
}
"""What every config of a kind has besides."""
OF_OTHER_MODULES = ("http: ", "python: ", "mcp: ", "artifact: ", "script: ")
TABLES = {
    "python": PYTHON, "http": HTTP, "postgres": POSTGRES, "snowflake": SNOWFLAKE, "duckdb": DUCKDB,
    "ducklake": DUCKLAKE, "transfer": TRANSFER, "container": CONTAINER, "script": SCRIPT, "nats": NATS,
    "subscription": SUBSCRIPTION, "mcp": MCP, "artifact": ARTIFACT, "secrets": SECRETS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [(kind, config, message) for kind, table in TABLES.items() for config, message in table],
    ids=[f"{kind}-{number}" for kind, table in TABLES.items() for number in range(len(table))],
)
def test_config_that_cannot_work_is_refused_before_the_start(kind: str, config: dict[str, Any], message: str) -> None:
    said = refusal(kind, {**GIVEN.get(kind, {}), **config}, base="h:80")
    inner = any(message.startswith(prefix) for prefix in OF_OTHER_MODULES)
    assert said == (message if inner else f"{kind}: {message}")


def test_connection_string_is_read_before_the_start_and_not_shown() -> None:
    pytest.importorskip("psycopg", reason="libpq reads it")
    said = refusal("postgres", {"query": "select 1", "connection_string": "postgresql://u:hush@[h/d"})
    assert said.startswith("postgres: the connection string does not parse: give postgresql://")
    assert "hush" not in said


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
        ["field 'ttl' is ignored: kv_put does not read it", "field 'subject' is ignored: kv_put does not read it"],
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
            "source": {"type": "file", "path": "a.csv", "query": "select 1", "method": "GET"},
            "target": {"type": "duckdb", "db_path": "f", "table": "t", "schema": "main", "host": "h", "role": "r"},
        },
        [
            "source: field 'query' is ignored: file does not read it",
            "source: field 'method' is ignored: file does not read it",
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
def test_field_that_is_not_read_is_reported_and_refused_where_strict(
    kind: str, config: dict[str, Any], told: list[str]
) -> None:
    texts = [f"{kind}: {text}" for text in told]
    assert list(REGISTRY.prepare(kind, config, tool_context(registry=REGISTRY)).warnings) == texts
    strict = Registry(plugins=False, strict=True)
    if texts:
        with pytest.raises(ToolError) as caught:
            strict.prepare(kind, config, tool_context(registry=strict))
        assert str(caught.value) == "; ".join(texts)
    else:
        assert strict.prepare(kind, config, tool_context(registry=strict)).warnings == ()

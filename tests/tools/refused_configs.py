"""Configs that cannot work, by kind, and what `prepare` says of each."""

from __future__ import annotations

from typing import Any

from .refused_packages import PACKAGES

AUTH_TYPES = "bearer, basic, api_key, header, headers, oauth2_client_credentials, gcp_adc, service_account, none"
NO_POSTGRES = "no connection; give 'auth', 'host' or 'connection_string'"
NO_NATS = "a connection requires 'url', or 'auth' with the alias of a credential"
NO_VARIABLE = "cannot be a variable: no '=' and no NUL character may be in it"
NO_BASE64 = "with encoding base64 the data must be base64 text"
TO_FILE = {"target": {"type": "duckdb", "database": "f.duckdb", "table": "t"}}
FROM_FILE = {"source": {"type": "duckdb", "query": "from 'a.csv'"}}


PYTHON: list[tuple[dict[str, Any], str]] = [
    ({}, "no code; give 'code', 'script' or 'code_b64'"),
    ({"code_b64": "%"}, "'code_b64' is not base64 of UTF-8 text: Only base64 data is allowed"),
    ({"script": {}}, "'script' needs 'uri', or 'source' with 'code'"),
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
        "libs: 'np' must be the name of a module, or {from: module, import: name}, not {'from': 'numpy'}",
    ),
    (
        {"code": "1", "deps": {"pip": ["x"]}},
        "deps: 'pip' is not supported; give 'packages', 'venv_path' or 'sys_path'",
    ),
    *PACKAGES,
    ({"code": "1", "auth": {"pg": 5}}, "auth: 'pg' must be an alias or an object, not int"),
    (
        {"code": "1", "auth": {"source": "credential", "service": "s"}},
        "auth: 's' needs 'key': the alias of a credential",
    ),
    ({"code": "1", "env": {"A=": 1}}, f"env: 'A=' {NO_VARIABLE}"),
    ({"code": "1", "memory_mb": 1}, "'memory_mb' is 1: give 32 or more"),
    ({"code": "1", "max_output_bytes": 0}, "'max_output_bytes' is 0: give 1 or more"),
    (
        {"code": "1", "auth": {"a": {"source": "env", "key": "PATH"}}},
        "auth: 'a': source 'env' is not supported; use credential",
    ),
]

SHELL: list[tuple[dict[str, Any], str]] = [
    ({"command": ""}, "'command' is empty; write one"),
    ({"command": "a\0b"}, "'command' has a NUL character; leave it out"),
    ({"command": "true", "env": {"A=B": "1"}}, f"env: 'A=B' {NO_VARIABLE}"),
    ({"command": "true", "env": {"A": "\0"}}, f"env: 'A' {NO_VARIABLE}"),
    ({"command": "true", "max_output_bytes": 0}, "'max_output_bytes' is 0: give 1 or more"),
]

URL = {"url": "http://h/"}
HTTP: list[tuple[dict[str, Any], str]] = [
    (
        {"url": "{{ base }}/x"},
        "url 'h:80/x' is no address: an address starts with http:// or https:// and a host",
    ),
    (
        {"url": "ftp://u:p@h/?key=k"},
        "url 'ftp://h/' is no address: an address starts with http:// or https:// and a host",
    ),
    ({**URL, "timeout": 0}, "timeout=0 is not a time: give seconds above 0, or a text like 30s or 2m"),
    ({**URL, "connect_timeout": 0}, "'connect_timeout' must be above 0 seconds, not 0"),
    ({**URL, "read_timeout": -1}, "'read_timeout' must be above 0 seconds, not -1"),
    ({**URL, "response_type": "xml"}, "field 'response_type' must be one of 'json', 'text', 'binary', not 'xml' (str)"),
    ({**URL, "max_response_bytes": 0}, "'max_response_bytes' is 0: give 1 to 268435456"),
    ({**URL, "method": 5}, "method '5' is none of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
    ({**URL, "files": {"a": {"name": "x"}}}, "files: 'a' needs exactly one of 'path', 'content', 'content_b64'"),
    ({**URL, "method": "FETCH"}, "method 'FETCH' is none of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
    ({**URL, "body_b64": "%"}, "'body_b64' is not base64: Only base64 data is allowed"),
    ({**URL, "data": {"query": "a=1"}}, "'data.query' must be an object, not str"),
    ({**URL, "files": {"f": [{"name": "x"}]}}, "files: 'f' needs exactly one of 'path', 'content', 'content_b64'"),
    (
        {**URL, "files": {"f": {"content": "x", "content_type": "text/csv\r\nX-Evil: 1"}}},
        "files: 'f': content_type 'text/csv\\r\\nX-Evil: 1' must be printable ASCII, like text/csv",
    ),
    ({**URL, "files": {"f": {"content_b64": "%"}}}, "'files.f.content_b64' is not base64: Only base64 data is allowed"),
    ({**URL, "auth": {"type": "kerberos"}}, f"auth type 'kerberos' is not supported; supported: {AUTH_TYPES}"),
    ({**URL, "auth": {"name": "x"}}, f"auth type None is not supported; supported: {AUTH_TYPES}"),
    ({**URL, "auth": {"what": 1}}, f"auth needs 'type'; supported: {AUTH_TYPES}"),
    (
        {**URL, "auth": {"type": "bearer", "source": "env", "key": "PATH"}},
        "auth source 'env' is not supported; use credential, secret or inline",
    ),
    ({**URL, "auth": {"provider": "secret_manager"}}, "auth from secret_manager needs 'key': projects/<p>/secrets/<s>"),
    ({**URL, "client_key": "k.pem"}, "'client_key' needs 'client_cert', the certificate of this key; give both"),
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

SELECT = {"query": "select 1"}
NO_QUERY = "field 'query' (or command, commands, sql) is missing"
POSTGRES: list[tuple[dict[str, Any], str]] = [
    (SELECT, NO_POSTGRES),
    ({"host": "h"}, NO_QUERY),
    ({"host": "h", "query": " \n"}, "'query' has no statement"),
    ({"host": "h", "query": {"a": 1}}, "field 'query' must be text or a list of text, not dict"),
    ({**SELECT, "host": "h", "query_b64": "c2VsZWN0IDI="}, "'query' and 'query_b64' have different texts; keep one"),
    ({"host": "h", "query_b64": "no base64!"}, "'query_b64' is not base64 of UTF-8 text: Only base64 data is allowed"),
    ({"query": "a", "command": "b"}, "'query' and 'command' are the same field with two values; keep one"),
    ({**SELECT, "host": "h", "port": "x"}, "field 'port' must be a whole number, not 'x' (str)"),
    ({**SELECT, "host": "h", "port": 70000}, "'port' is 70000: give 1 to 65535"),
    ({**SELECT, "host": "h", "max_rows": 0}, "'max_rows' is 0: give 1 or more"),
    (
        {**SELECT, "auth": {"a": {"host": "h"}, "b": {"host": "i"}}},
        "auth holds several credentials; name the one to use: auth: <alias>",
    ),
    (
        {**SELECT, "host": "h", "sslmode": "on"},
        "field 'sslmode' must be one of 'disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', "
        "not 'on' (str)",
    ),
    (
        {**SELECT, "host": "h", "schema": "a b,c"},
        "'schema' 'a b,c' is no list of schema names: separate the names with commas, and put a name "
        "in double quotes where SQL needs them",
    ),
    (
        {"host": "h", "query": "select $1, %s", "params": [1, 2]},
        "select $1, %s: the statement has place holders of two kinds, $1 and %s: write all of them as $1, $2 "
        "(if the percent sign is an operator, put a blank after it)",
    ),
]

SIGN_IN = {"account": "a", "user": "u", "password": "p"}
SNOWFLAKE: list[tuple[dict[str, Any], str]] = [
    ({**SIGN_IN, "query": "  "}, "'query' has no statement"),
    ({**SIGN_IN, "max_rows": 0}, "'max_rows' is 0: give 1 or more"),
    ({}, "no 'account'; give it, or 'auth' with a credential of type snowflake"),
    ({"account": "a"}, "no 'user'; give it, or 'auth' with a credential of type snowflake"),
    (
        {"account": "a", "user": "u"},
        "Password is required for Snowflake authentication; give 'password' or 'private_key'",
    ),
]

DUCKDB: list[tuple[dict[str, Any], str]] = [
    ({"query": "\n "}, "'query' has no statement"),
    ({"query_b64": "?"}, "'query_b64' is not base64 of UTF-8 text: Only base64 data is allowed"),
    ({"max_rows": 0}, "'max_rows' is 0: give 1 or more"),
    ({"threads": 0}, "'threads' is 0: give 1 or more"),
    ({"auth": {"pg": 5}}, "auth 'pg' must be an alias or an object, not int"),
    (
        {"auth": {"type": "ftp", "user": "u"}},
        "auth 'noetl' is of type 'ftp'; DuckDB has secrets for gcs, http, huggingface, mysql, postgres, r2, s3",
    ),
    ({"auth": {"type": "http"}}, "auth 'noetl' has no field of a http credential: give token, scope"),
    ({"extensions": ["a-b"]}, "extension 'a-b' is no name; write `name` or `name from repository`"),
]

LAKE = {"data_path": "d"}
DUCKLAKE: list[tuple[dict[str, Any], str]] = [
    ({"catalog": "f"}, "field 'data_path' is missing: give the directory or s3:// prefix of the Parquet files"),
    ({**LAKE, "catalog": "f", "catalog_name": 'a"b'}, "'catalog_name' is 'a\"b': give a name of letters, digits and _"),
    ({**LAKE, "catalog": "f", "max_rows": -1}, "'max_rows' is -1: give 1 or more"),
    ({**LAKE, "catalog": "ducklake:"}, "no catalog; give 'catalog_connection', or 'auth' of type postgres or mysql"),
    ({**LAKE, "catalog": "postgresql://h:port/d"}, "the port of 'catalog_connection' is no number: give one like 5432"),
    (
        {**LAKE, "catalog": "postgres:host=h sslmode=x"},
        "'catalog_connection' has options that cannot be passed to DuckDB: sslmode; leave them out",
    ),
    ({**LAKE, "catalog": "f", "extensions": [""]}, "extension '' is no name; write `name` or `name from repository`"),
]

ROWS = {"type": "postgres", "host": "h", "query": "select 1"}
TO_TABLE = {"target": {"type": "postgres", "host": "h", "table": "t"}}
ENDS = "sources: postgres, duckdb, http, snowflake; targets: postgres, duckdb, snowflake"
TRANSFER: list[tuple[dict[str, Any], str]] = [
    ({"source": ROWS, "target": {"type": "postgres"}}, "target: Target table name required: give 'table'"),
    (
        {**TO_TABLE, "source": {"type": "postgres", "host": "h"}},
        "source: field 'query' is missing: give the SELECT of the postgres source",
    ),
    ({**TO_TABLE, "source": {"type": "http"}}, "source: Source URL required for HTTP transfer: give 'url'"),
    ({**TO_TABLE, "source": {"type": "oracle"}}, f"Unsupported transfer direction: oracle to postgres; {ENDS}"),
    ({**TO_TABLE, "source": ROWS, "chunk_size": 0}, "'chunk_size' is 0: give 1 to 100000"),
    ({**TO_TABLE, "source": ROWS, "key": "id"}, "'key' belongs to mode 'upsert', not 'append'"),
    (
        {**TO_TABLE, "source": {"type": "postgres", "hots": "x", "query": "select 1"}},
        f"source: {NO_POSTGRES} (transfer: source: unknown field 'hots' is ignored; did you mean 'host'?)",
    ),
    (
        {"source": ROWS, "target": {"type": "duckdb", "table": "t"}},
        "target: a DuckDB target is a file: name it in 'database'",
    ),
    (
        {**TO_TABLE, "source": {"type": "file", "path": "a.csv"}},
        f"Unsupported transfer direction: file to postgres; {ENDS}",
    ),
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
        {**FROM_FILE, "target": {"type": "duckdb", "database": ":memory:", "table": "t"}},
        "target: 'database' is ':memory:', which ends with the transfer: name the file of the DuckDB target",
    ),
    (
        {**FROM_FILE, "target": {"type": "duckdb", "database": "f", "table": "t", "auth": {"x": 1}}},
        "target: auth 'x' must be an alias or an object, not int",
    ),
]

JOB = {"image": "i"}
VOLUME_FORM = "each of volumes needs 'name' and exactly one of empty_dir, persistent_volume_claim, config_map, secret"
CONTAINER: list[tuple[dict[str, Any], str]] = [
    ({}, "image is required"),
    (
        {"runtime": {"image": "i", "command": "echo hi"}},
        "runtime: field 'command' must be a list of text, not 'echo hi' (str)",
    ),
    (
        {"runtime": {"image": "i", "files": []}},
        "runtime.files is not supported; supported: image, namespace, command, args, env, "
        "serviceAccountName, service_account, resources",
    ),
    (
        {"image": "i", "env": [{"name": "X", "value": "v", "value_from": {}}]},
        "container env var 'X': value and value_from are mutually exclusive; keep one",
    ),
    (
        {"image": "i", "env": [{"name": "X", "value_from": {"secret_name": "s"}}]},
        "container env var 'X': value_from needs secret_name and secret_key, or one of secretKeyRef, "
        "configMapKeyRef, fieldRef, resourceFieldRef",
    ),
    (
        {"image": "i", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s"}}}]},
        "container env var 'X': secretKeyRef needs name and key",
    ),
    (
        {"image": "i", "env": [{"name": "X", "vlaue": "v"}]},
        "container env var 'X' has vlaue beside its name; give value or value_from, and nothing else",
    ),
    (
        {"image": "i", "volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        "each of volumes needs 'name' and exactly one of empty_dir, persistent_volume_claim, config_map, secret",
    ),
    (
        {"image": "i", "runtime": {"env": [1]}},
        "runtime: field 'env' must be a list of an object or an object, not list",
    ),
    ({"image": "i", "env": [{"value": 1}]}, "each of env needs 'name'"),
    (
        {**JOB, "namespace": "My Space"},
        "'namespace' 'My Space' is not allowed: use small letters, digits and -, at most 63",
    ),
    ({**JOB, "backoff_limit": -1}, "'backoff_limit' is -1: give 0 or more"),
    ({**JOB, "ttl_seconds_after_finished": -1}, "'ttl_seconds_after_finished' is -1: give 0 or more"),
    ({**JOB, "resources": {"cpu": 1}}, "resources: 'cpu' is none of requests, limits, claims"),
    ({**JOB, "resources": {"limits": "1Gi"}}, "resources: 'limits' must be an object like {cpu: 500m, memory: 1Gi}"),
    ({**JOB, "env": {"A=B": "c"}}, "env: 'A=B' cannot be a variable: no '=' and no control character may be in it"),
    ({**JOB, "volumes": [{"empty_dir": {}, "secret": {}}]}, VOLUME_FORM),
    ({**JOB, "volumes": [{"name": "v", "secret": "s"}]}, "volume 'v': 'secret' must be an object"),
    ({**JOB, "volumes": [{"name": "v", "config_map": {}}]}, "volume 'v': 'config_map' needs 'name'"),
    ({**JOB, "volume_mounts": [{"name": "v"}]}, "each of volume_mounts needs 'name' and 'mount_path'"),
    (
        {**JOB, "volumes": [{"name": "v", "empty_dir": None}], "volume_mounts": [{"name": "w", "mount_path": "/w"}]},
        "volume_mounts: there is no volume 'w'; there are: v",
    ),
    ({**JOB, "auth": {"token": "t"}}, "the credential needs 'url', the address of the Kubernetes API"),
    ({"runtime": {"image": []}}, "runtime: field 'image' must be text, not list"),
    ({"runtime": {"image": "i", "resources": []}}, "runtime: field 'resources' must be an object, not list"),
]

SCRIPT: list[tuple[dict[str, Any], str]] = [
    ({"script": {"content": " "}}, "script: the script is empty; write one"),
    ({"script": {"type": "inline"}}, "python: 'script' needs 'uri', or 'source' with 'code'"),
    ({"job": {"image": ""}}, "script: job: 'image' is empty; name one"),
    ({"job": {"timeout": -5}}, "script: job: 'timeout' must be above 0 seconds, not -5"),
    ({"job": {"backoffLimit": -1}}, "script: job: 'backoff_limit' is -1: give 0 or more"),
    ({"job": {"resources": {"memory": "1Gi"}}}, "script: job: resources: 'memory' is none of requests, limits, claims"),
    ({"job": {"env": ["A"]}}, "script: job: field 'env' must be an object, not list"),
    (
        {"job": {"image_pull_policy": "Often"}},
        "script: job: field 'image_pull_policy' must be one of 'Always', 'IfNotPresent', 'Never', not 'Often' (str)",
    ),
]

PUT = {"operation": "kv_put", "bucket": "b", "key": "k", "value": "v"}
NATS: list[tuple[dict[str, Any], str]] = [
    *(
        (
            {"operation": operation},
            f"unknown operation {operation!r}; known: kv_get, kv_put, kv_delete, kv_purge, kv_keys, object_put, "
            "object_get, object_info, object_list, object_delete, js_publish, js_consume, js_get_msg, js_stream_info",
        )
        for operation in ("drop", "publish")
    ),
    ({"operation": "kv_get", "key": "k"}, "kv_get requires 'bucket'"),
    ({"operation": "kv_get", "bucket": "b"}, "kv_get requires 'key'"),
    ({"operation": "object_get", "bucket": "b"}, "object_get requires 'object' or 'name'"),
    ({"operation": "js_consume", "consumer": "c"}, "js_consume requires 'stream'"),
    (
        {"operation": "js_get_msg", "stream": "s"},
        "js_get_msg requires 'seq', 'subject' or 'last: true'",
    ),
    (
        {"operation": "js_consume", "stream": "s", "consumer": "c", "batch": 0},
        "'batch' is 0: give 1 or more",
    ),
    (
        {"operation": "js_stream_info", "stream": "a.b"},
        "stream 'a.b' has a character that no stream may have: leave out . * > / \\ and blanks",
    ),
    ({"operation": "js_publish", "subject": "a b"}, "subject 'a b' is not allowed: write words with dots between them"),
    (
        {"operation": "js_publish", "subject": "s", "headers": {"a": "x\r\nB: y"}, "url": "nats://127.0.0.1:1"},
        "header 'a' must have a name without a colon, and no line break in name or value",
    ),
    ({**PUT, "value": None}, "kv_put requires 'value'"),
    (PUT, NO_NATS),
    (
        {**PUT, "url": "nats://h", "key": "a b"},
        "key 'a b' is not allowed: use letters, digits and - / _ = . with no dot at either end",
    ),
    (
        {**PUT, "url": "nats://h", "key": ".a"},
        "key '.a' is not allowed: use letters, digits and - / _ = . with no dot at either end",
    ),
    ({**PUT, "url": "nats://"}, "url 'nats://' is no address: write nats://host:4222"),
    ({**PUT, "url": "nats://user:word@:4222"}, "url 'nats://:4222' is no address: write nats://host:4222"),
    ({**PUT, "url": "nats://user:word@host:port"}, "url 'nats://host:port' is no address: write nats://host:4222"),
    ({**PUT, "url": "nats://h", "encoding": "base64", "value": "%"}, NO_BASE64),
]

POLL = {"source": "nats", "stream": "S", "consumer": "c"}
SUBSCRIPTION: list[tuple[dict[str, Any], str]] = [
    ({"source": "sqs"}, "unsupported source 'sqs'. Supported: nats"),
    (
        {"source": "kafka"},
        "source 'kafka' is not read by this worker: bridge it to a NATS stream, or read it with "
        "the python tool and a client library",
    ),
    (
        {**POLL, "operation": "drain"},
        "unsupported operation 'drain'. Supported: poll, ack, nack, term",
    ),
    (
        {**POLL, "ack": "later"},
        "unsupported ack 'later'. Supported: on_success, auto, true, manual, defer, none, false",
    ),
    ({"source": "nats"}, "[nats] requires 'stream'"),
    (
        {**POLL, "stream": "S.x"},
        "stream 'S.x' has a character that no stream may have: leave out . * > / \\ and blanks",
    ),
    ({**POLL, "batch": 0}, "'batch' is 0: give 1 or more"),
    (
        {"source": "nats", "operation": "ack"},
        "ack requires 'ack_ids': give the `ack_ids` of a poll with `ack: defer`",
    ),
    (
        {"source": "nats", "operation": "ack", "ack_ids": ["$JS.API.STREAM.DELETE.S"]},
        "ack_id '$JS.API.STREAM.DELETE.S' is not from a NATS poll; give the `ack_ids` of a poll",
    ),
    (
        {"source": "nats", "operation": "ack", "ack_ids": ["$JS.ACK.x"] * 1001},
        "ack: 1001 ack_ids; at most 1000 at once: split them",
    ),
    (POLL, NO_NATS),
    (
        {"source": "nats", "operation": "nack", "ack_ids": ["$JS.ACK.x"], "nack_delay_ms": -1, "url": "nats://h"},
        "'nack_delay_ms' is -1: give 0 or more",
    ),
]

MCP: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "http://mcp.test/mcp"}, "tools/call requires 'tool'"),
    ({"tool": "t", "arguments": "[1]"}, "arguments must be an object, or its JSON text"),
    ({"tool": "t", "arguments": [1]}, "field 'arguments' must be an object or text, not list"),
    ({"tool": "t", "request_id": "a"}, "field 'request_id' must be a whole number, not 'a' (str)"),
    (
        {"endpoint": "http://h", "tool": "t", "auth": {"type": "x"}},
        f"http: auth type 'x' is not supported; supported: {AUTH_TYPES}",
    ),
]

ARTIFACT: list[tuple[dict[str, Any], str]] = [
    ({}, "get requires 'uri' or 'result_ref' (or either of them under 'input')"),
    ({"action": "put"}, "put requires 'data'"),
    (
        {"uri": "s3://bucket/x"},
        "uri scheme 's3' is not supported: give a signed https:// address",
    ),
    (
        {"uri": "nats-kv://b/k"},
        "uri scheme 'nats-kv' is not supported: use the nats tool with kv_get or kv_put",
    ),
    (
        {"uri": "relative/x"},
        "uri 'relative/x' has no supported scheme: use noetl://, file://, http:// or https://",
    ),
    ({"input": {"uri": 5}}, "'uri' under 'input' must be text"),
    ({"result_ref": "x"}, "ref 'x' is no reference: give text that starts with noetl://"),
    ({"uri": "/x", "max_bytes": 0}, "'max_bytes' is 0: give 1 to 268435456"),
    (
        {"action": "put", "data": 1, "compress": True},
        "'compress' is for files and http; the control plane compresses results itself: leave 'compress' out",
    ),
    ({"uri": "file://other/x"}, "artifact: 'file://other/x' names the host 'other'; write file:///absolute/path"),
    (
        {"uri": "http://"},
        "artifact: uri 'http://' is no address: an address starts with http:// or https:// and a host",
    ),
    (
        {"action": "put", "data": 1, "uri": "noetl://x"},
        "artifact: the control plane chooses the reference of a stored result: leave 'uri' out, and give 'name'",
    ),
    (
        {"action": "put", "data": "%", "encoding": "base64", "uri": "/tmp/x"},
        f"artifact: {NO_BASE64}",
    ),
    ({"uri": "http://h/x", "auth": {"type": "x"}}, f"http: auth type 'x' is not supported; supported: {AUTH_TYPES}"),
]

SECRETS: list[tuple[dict[str, Any], str]] = [
    ({}, "field 'name' (or secret_name) is missing"),
    (
        {"name": "x", "provider": "vault"},
        "Secrets provider 'vault' is not implemented; use env, file, google, or "
        "{{ keychain.<name>.<field> }} in a template",
    ),
    ({"name": "x", "version": []}, "field 'version' must be text, not list"),
]

RESULT_FETCH: list[tuple[dict[str, Any], str]] = [
    ({"ref": "x"}, "ref 'x' is no reference: give text that starts with noetl://"),
    ({"ref": {"kind": "result_ref"}}, "ref 'None' is no reference: give text that starts with noetl://"),
]

PLAYBOOK: list[tuple[dict[str, Any], str]] = [
    ({}, "'path' or 'catalog_id' is missing"),
    ({"path": "c", "catalog_id": "7"}, "'path' and 'catalog_id' both name a child; keep one"),
]
WORKBOOK: list[tuple[dict[str, Any], str]] = [
    ({}, "field 'name' (or task) is missing: give the name of an entry in the playbook's workbook"),
]

GIVEN: dict[str, dict[str, Any]] = {
    "snowflake": SELECT,
    "duckdb": SELECT,
    "ducklake": SELECT,
    "script": {"script": "print(1)\n"},
}
"""What every config of a kind has besides."""
OF_OTHER_MODULES = ("http: ", "python: ", "mcp: ", "artifact: ", "script: ")
TABLES = {
    "python": PYTHON, "http": HTTP, "postgres": POSTGRES, "snowflake": SNOWFLAKE, "duckdb": DUCKDB,
    "ducklake": DUCKLAKE, "transfer": TRANSFER, "container": CONTAINER, "script": SCRIPT, "nats": NATS,
    "subscription": SUBSCRIPTION, "mcp": MCP, "artifact": ARTIFACT, "result_fetch": RESULT_FETCH, "secrets": SECRETS,
    "shell": SHELL, "playbook": PLAYBOOK, "workbook": WORKBOOK,
}  # fmt: skip

"""Kind `nats`: uses key-value buckets, object stores, messages and streams of NATS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.fields import check_numbers, ignored_field
from noetl_worker.tools.kinds.nats.connections import Address, NatsConnectionTool, check_login, resolve_address
from noetl_worker.tools.kinds.nats.failures import leased_client, not_permitted
from noetl_worker.tools.kinds.nats.key_value import KEY_VALUE, OBJECTS
from noetl_worker.tools.kinds.nats.messages import MESSAGES, check_names
from noetl_worker.tools.kinds.nats.nats_fields import NatsFields
from noetl_worker.tools.kinds.nats.operation import Operation, with_values
from noetl_worker.tools.payload import as_bytes, as_headers

MAX_BATCH: Final = 1000
MAX_WAIT_MS: Final = 5000
_OPERATIONS: Final[Mapping[str, Operation]] = {**KEY_VALUE, **OBJECTS, **MESSAGES}
_OF_EVERY_OPERATION: Final = frozenset({"operation", "url", "auth", "user", "password", "token", "timeout", "name"})
"""Config fields that cause no warning, even if the operation does not read them. `name` is in the list because a plane
may put the task's label into `name`."""
_KEY: Final = re.compile(r"(?!\.)[-/_=.a-zA-Z0-9]+(?<!\.)")
_SAME: Final = {"consume": "js_consume", "object_store_get": "object_get"}


@dataclass(frozen=True, slots=True)
class NatsConfig(NatsFields):
    """An operation on a NATS server: key-value (kv_*), object store (object_*), streams (js_*).

    The connection comes from `auth`, or from `url` with `user`/`password` or `token`. The worker keeps this connection
    open for later commands with the same credential. The worker's own NATS connection is never used. Buckets, streams
    and consumers must exist.
    """

    def __post_init__(self) -> None:
        operation = self.operation.strip().lower().replace(".", "_").replace("-", "_")
        operation = _SAME.get(operation, operation)
        if operation not in _OPERATIONS:
            raise ConfigurationError(
                f"unknown operation {self.operation!r}; known: {', '.join(_OPERATIONS)}", field="operation"
            )
        for name in _OPERATIONS[operation].required:
            value = self.object_name if name == "name" else getattr(self, name)
            if value is None or (value == "" and name != "value"):
                shown = "object' or 'name" if name == "name" else name
                raise ConfigurationError(f"{operation} requires '{shown}'", field=name, reason="missing")
        if operation == "js_get_msg" and (self.seq, self.subject, self.last) == (None, None, False):
            raise ValueError("js_get_msg requires 'seq', 'subject' or 'last: true'")
        check_numbers(1, batch=self.batch, timeout_ms=self.timeout_ms)
        self._check_names()
        object.__setattr__(self, "operation", operation)
        object.__setattr__(self, "batch", min(self.batch, MAX_BATCH))
        object.__setattr__(self, "timeout_ms", min(self.timeout_ms, MAX_WAIT_MS))
        for name in ("value", "data"):
            if name in _fields_read(operation) and self.encoding == "base64":
                as_bytes("nats", getattr(self, name), self.encoding)
        as_headers(self.headers)
        check_login("nats", self)

    def _check_names(self) -> None:
        check_names(bucket=self.bucket, stream=self.stream, consumer=self.consumer)
        if self.key is not None and not _KEY.fullmatch(self.key):
            raise ConfigurationError(
                f"key {self.key!r} is not allowed: use letters, digits and - / _ = . with no dot at either end",
                field="key",
            )
        if self.subject is not None and (not self.subject or any(mark.isspace() for mark in self.subject)):
            raise ConfigurationError(
                f"subject {self.subject!r} is not allowed: write words with dots between them", field="subject"
            )


def _fields_read(operation: str) -> frozenset[str]:
    """Return the required and optional fields of this operation."""
    _, required, optional = _OPERATIONS[operation]
    return frozenset({*required, *optional, *(("object",) if "name" in required else ())})


def _default(config_field: Field[Any]) -> Any:
    return config_field.default if config_field.default_factory is MISSING else config_field.default_factory()


class NatsTool(NatsConnectionTool):
    """Tool of kind `nats`. The data depends on the operation, and always has `status: success` (kv_get: `not_found` for
    a missing key): kv_get {bucket, key, value, revision}; kv_put {bucket, key, revision}; kv_delete, kv_purge {bucket,
    key}; kv_keys {bucket, keys, count}. object_put {bucket, name, size, digest}; object_get {bucket, name, data, size};
    object_info {bucket, name, size, description, chunks, digest}; object_list {bucket, objects, count}; object_delete
    {bucket, name}. js_publish {stream, seq, duplicate}; js_consume {stream, consumer, count, messages: [{subject,
    stream_seq, consumer_seq, delivered, pending, data, headers}], acked}; js_get_msg {stream, subject, seq, data,
    headers}; js_stream_info {stream, config, state}. JSON in values and payloads is parsed.

    Errors: not_found (bucket, stream, object or consumer), client_error with code wrong_last_sequence (kv_put or
    kv_delete when the key has another revision), auth, connection, timeout.

    differs-from-upstream: connections stay open for later commands; kv_get, kv_put and kv_delete take a `revision`.
    """

    kind: ClassVar[str] = "nats"
    config_model: ClassVar[type] = NatsConfig
    field_aliases: ClassVar[Mapping[str, str]] = {
        "nats_url": "url",
        "servers": "url",
        "username": "user",
        "nats_user": "user",
        "nats_password": "password",
        "nats_token": "token",
        "object_name": "object",
        "payload": "data",
    }

    def ignored(self, config: NatsConfig) -> list[ConfigurationError]:
        """Return a warning for each config field that the step's `operation` does not read."""
        read = _fields_read(config.operation) | _OF_EVERY_OPERATION
        given = [known.name for known in fields(config) if getattr(config, known.name) != _default(known)]
        why = f"{config.operation} does not read it"
        return [ignored_field(self.kind, name, why) for name in given if name not in read]

    async def run(self, config: NatsConfig, context: ToolContext) -> ToolResult:
        address = await resolve_address("nats", config, context)
        result = await in_time(self._call(address, config, context), context.timeout_s)
        if result.status is ToolStatus.TIMEOUT and (refusal := self._connections.refusal(address)):
            raise not_permitted(config.operation, refusal)
        return result

    async def _call(self, address: Address, config: NatsConfig, context: ToolContext) -> Mapping[str, JsonValue]:
        operation = _OPERATIONS[config.operation]
        if "headers" in operation.optional:
            config = replace(config, headers=context.worker.with_trace(config.headers))
        async with leased_client(self._connections, address, config.operation) as client:
            found = await with_values(await operation.call(client, config), context.stop)
        return {"status": "success", **found}

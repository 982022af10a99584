"""Operations on key-value buckets and object stores of JetStream, for the `nats` tool. The tool creates no bucket."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from noetl_worker.errors import ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import off_loop
from noetl_worker.tools.kinds.nats.nats_fields import NatsFields
from noetl_worker.tools.kinds.nats.operation import Operation
from noetl_worker.tools.payload import MAX_RESULT_BYTES, as_bytes, as_text

_MAX_KEYS: Final = 10_000
_OPENING_S: Final = 2.0
"""Maximum seconds to wait until a cancelled watch of a bucket is open, because only an open watch can be stopped."""

# ── key-value ───────────────────────────────────────────────────────────────────────────────────


async def _get(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    from nats.js.errors import KeyNotFoundError

    bucket = await client.jetstream().key_value(config.bucket)
    place: dict[str, JsonValue] = {"bucket": config.bucket, "key": config.key}
    try:
        entry = await bucket.get(config.key, revision=config.revision)
    except KeyNotFoundError:  # an ordinary answer, as upstream: the playbook tests the status
        return {"status": "not_found", **place, "value": None, "revision": None}
    return {**place, "value": entry.value or b"", "revision": entry.revision}


async def _write(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    bucket = await client.jetstream().key_value(config.bucket)
    value = as_bytes("nats", config.value, config.encoding)
    if config.revision is not None:  # compare and set: the server refuses to overwrite a newer value
        revision = await bucket.update(config.key, value, last=config.revision)
    else:
        revision = await bucket.put(config.key, value)
    return {"bucket": config.bucket, "key": config.key, "revision": revision}


async def _remove(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    bucket = await client.jetstream().key_value(config.bucket)
    if config.operation == "kv_purge":
        await bucket.purge(config.key)
    else:
        await bucket.delete(config.key, last=config.revision)
    return {"bucket": config.bucket, "key": config.key}


async def _keys(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    bucket = await client.jetstream().key_value(config.bucket)
    keys: set[str] = set()
    async with (
        _watching(bucket.watchall(meta_only=True)) as watcher,
        aclosing(_present(client, config, watcher)) as present,
    ):
        async for entry in present:
            is_there = entry.operation is None
            if is_there and (config.pattern is None or fnmatch.fnmatchcase(entry.key, config.pattern)):
                keys.add(entry.key)
            if len(keys) > _MAX_KEYS:
                break
    found = sorted(keys)[:_MAX_KEYS]
    data: dict[str, JsonValue] = {"bucket": config.bucket, "keys": found, "count": len(found)}
    return {**data, "truncated": True} if len(keys) > _MAX_KEYS else data


async def _present(client: Any, config: NatsFields, watcher: Any) -> AsyncGenerator[Any, None]:
    """Yield the entries that the bucket had when the watch began."""
    has_begun = False
    while True:
        entry = await watcher.updates()
        if entry is not None:
            has_begun = True
            yield entry
        elif has_begun or not await _has_messages(client, config):
            return
        if entry is not None and entry.delta == 0:
            return


async def _has_messages(client: Any, config: NatsFields) -> bool:
    """Return True if the server says that the bucket has entries.

    A nats-py watcher returns None after the existing entries. It also returns None while all entries are still on the
    way. So None alone does not mean that the bucket is empty.
    """
    info = await client.jetstream().stream_info(f"KV_{config.bucket}", subjects_filter=f"$KV.{config.bucket}.>")
    return bool(info.state.subjects)


@asynccontextmanager
async def _watching(opening: Coroutine[Any, Any, Any]) -> AsyncIterator[Any]:
    """Provide a nats-py watcher, and stop the watcher at the end of the block.

    nats-py does not stop a watcher whose opening was cancelled. Such a watcher would run until the shared connection is
    closed.
    """
    opened = asyncio.ensure_future(opening)
    try:
        watcher = await asyncio.shield(opened)
    except asyncio.CancelledError:
        await asyncio.wait({opened}, timeout=_OPENING_S)
        if not opened.cancel() and not opened.cancelled() and opened.exception() is None:
            await opened.result().stop()
        raise
    try:
        yield watcher
    finally:
        await watcher.stop()


# ── objects ─────────────────────────────────────────────────────────────────────────────────────


async def _object_put(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    from nats.js.api import ObjectMeta, ObjectMetaOptions

    content = as_bytes("nats", config.data, config.encoding)
    _bounded(f"the data of object {config.object_name!r}", len(content))
    store = await client.jetstream().object_store(config.bucket)
    options = ObjectMetaOptions(max_chunk_size=128 * 1024)
    meta = ObjectMeta(name=config.object_name, description=config.description, options=options)
    info = await store.put(config.object_name, content, meta=meta)
    return {"bucket": config.bucket, "name": info.name, "size": info.size, "digest": info.digest}


async def _object_get(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    """Return the content of an object in an object store. nats-py compares the content's SHA-256 with the object's
    digest."""
    store = await client.jetstream().object_store(config.bucket)
    info = await store.get_info(config.object_name)
    if info.is_link():  # the size of a link is not the size of its target
        raise ToolError(f"object {config.object_name!r} is a link; name the object it leads to", kind="client_error")
    _bounded(f"object {config.object_name!r}", info.size or 0)
    store.ObjectResult = _Content
    content = bytes((await store.get(config.object_name)).data)
    text = await off_loop(len(content), lambda: as_text(f"object {config.object_name!r}", content, config.encoding))
    return {"bucket": config.bucket, "name": info.name, "data": text, "size": info.size}


class _Content:
    """A buffer to which nats-py adds the chunks of an object. nats-py's own buffer would be copied for each chunk."""

    def __init__(self, info: Any) -> None:
        self.info = info
        self.data = bytearray()


async def _object_info(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    store = await client.jetstream().object_store(config.bucket)
    return {"bucket": config.bucket, **_described(await store.get_info(config.object_name))}


async def _object_list(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    from nats.js.errors import NotFoundError

    store = await client.jetstream().object_store(config.bucket)
    try:
        found = await store.list(ignore_deletes=True)
    except NotFoundError:  # the library raises this for an empty store
        found = []
    objects = sorted((_described(info) for info in found), key=lambda described: str(described["name"]))
    return {"bucket": config.bucket, "objects": objects, "count": len(objects)}


async def _object_delete(client: Any, config: NatsFields) -> dict[str, JsonValue]:
    store = await client.jetstream().object_store(config.bucket)
    await store.delete(config.object_name)
    return {"bucket": config.bucket, "name": config.object_name}


def _described(info: Any) -> dict[str, JsonValue]:
    return {
        "name": info.name,
        "size": info.size,
        "description": info.description,
        "chunks": info.chunks,
        "digest": info.digest,
    }


def _bounded(what: str, size: int) -> None:
    if size > MAX_RESULT_BYTES:
        raise ToolError(
            f"{what} has {size} bytes; one call carries at most {MAX_RESULT_BYTES}: split it", kind="resource"
        )


KEY_VALUE: Final[Mapping[str, Operation]] = {
    "kv_get": Operation(_get, ("bucket", "key"), ("revision",)),
    "kv_put": Operation(_write, ("bucket", "key", "value"), ("encoding", "revision")),
    "kv_delete": Operation(_remove, ("bucket", "key"), ("revision",)),
    "kv_purge": Operation(_remove, ("bucket", "key")),
    "kv_keys": Operation(_keys, ("bucket",), ("pattern",)),
}

OBJECTS: Final[Mapping[str, Operation]] = {
    "object_put": Operation(_object_put, ("bucket", "name", "data"), ("encoding", "description")),
    "object_get": Operation(_object_get, ("bucket", "name"), ("encoding",)),
    "object_info": Operation(_object_info, ("bucket", "name")),
    "object_list": Operation(_object_list, ("bucket",)),
    "object_delete": Operation(_object_delete, ("bucket", "name")),
}

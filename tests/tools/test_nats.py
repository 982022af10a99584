"""Kind `nats` against a real server: buckets and objects; configs."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from noetl_worker.testing import tool_context
from noetl_worker.tools.kinds.nats import failures as nats_failures
from noetl_worker.tools.kinds.nats.nats import NatsTool
from noetl_worker.tools.registry import Registry

from .nats_service import Session


@pytest.mark.parametrize(
    ("name", "description", "text"),
    [
        (
            "InvalidKeyError",
            "a b",
            "kv_put failed: the key may have letters, digits and - / _ = . only, with no dot at either end (a b)",
        ),
        ("BadRequestError", "no such option", "kv_put failed: no such option"),
    ],
)
def test_failure_of_the_library_says_why(name: str, description: str, text: str) -> None:
    from nats.js import errors

    error = getattr(errors, name)(description=description)
    assert str(nats_failures.library_failure("kv_put", error, None)) == text


# ── key-value ───────────────────────────────────────────────────────────────────────────────────


async def test_put_get_delete_as_the_recorded_playbook_does(session: Session) -> None:
    bucket = await session.bucket()
    put = await session.call("kv_put", bucket=bucket, key="user.1", value={"name": "ada"})
    assert put == {"status": "success", "bucket": bucket, "key": "user.1", "revision": 1}
    got = await session.call("kv_get", bucket=bucket, key="user.1")
    assert got == {
        "status": "success", "bucket": bucket, "key": "user.1", "value": {"name": "ada"}, "revision": 1,
    }  # fmt: skip
    assert await session.call("kv_delete", bucket=bucket, key="user.1") == {
        "status": "success", "bucket": bucket, "key": "user.1",
    }  # fmt: skip
    gone = await session.call("kv_get", bucket=bucket, key="user.1")
    assert gone == {"status": "not_found", "bucket": bucket, "key": "user.1", "value": None, "revision": None}


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("plain", "plain"),
        ("007", "007"),
        ("", ""),
        ("12", 12),
        (12, 12),
        ([1, None], [1, None]),
        (False, False),
        ("é", "é"),
    ],
)
async def test_values_are_text_or_json(session: Session, stored: Any, read: Any) -> None:
    bucket = await session.bucket()
    await session.call("kv_put", bucket=bucket, key="k", value=stored)
    assert (await session.call("kv_get", bucket=bucket, key="k"))["value"] == read


async def test_bytes_go_in_as_base64_and_come_out_marked(session: Session) -> None:
    bucket = await session.bucket()
    encoded = base64.b64encode(b"\xff\x00").decode()
    await session.call("kv_put", bucket=bucket, key="k", value=encoded, encoding="base64")
    assert (await session.call("kv_get", bucket=bucket, key="k"))["value"] == {"base64": encoded, "size": 2}


async def test_put_with_a_revision_is_a_compare_and_set(session: Session) -> None:
    bucket = await session.bucket(history=5)
    assert (await session.call("kv_put", bucket=bucket, key="k", value="a", revision=0))["revision"] == 1
    assert (await session.call("kv_put", bucket=bucket, key="k", value="b", revision=1))["revision"] == 2
    for revision in (0, 1):
        stale = await session.refused("kv_put", bucket=bucket, key="k", value="c", revision=revision)
        assert stale.code == "wrong_last_sequence"
    assert (await session.call("kv_get", bucket=bucket, key="k"))["value"] == "b"
    assert (stale.kind, stale.retryable) == ("client_error", False)
    assert str(stale).startswith("kv_put failed: wrong last sequence")
    deleted = await session.refused("kv_delete", bucket=bucket, key="k", revision=1)
    assert str(deleted).startswith("kv_delete failed: wrong last sequence")
    assert (await session.call("kv_get", bucket=bucket, key="k", revision=1))["value"] == "a"


async def test_keys_are_sorted_globbed_and_without_deleted_ones(session: Session) -> None:
    bucket = await session.bucket()
    assert await session.call("kv_keys", bucket=bucket) == {
        "status": "success", "bucket": bucket, "keys": [], "count": 0,
    }  # fmt: skip
    for key in ("user.2", "user.1", "order.1", "user.3"):
        await session.call("kv_put", bucket=bucket, key=key, value=1)
    await session.call("kv_delete", bucket=bucket, key="user.3")
    assert (await session.call("kv_keys", bucket=bucket))["keys"] == ["order.1", "user.1", "user.2"]
    assert await session.call("kv_keys", bucket=bucket, pattern="user.*") == {
        "status": "success", "bucket": bucket, "keys": ["user.1", "user.2"], "count": 2,
    }  # fmt: skip


async def test_purge_removes_the_revisions(session: Session) -> None:
    bucket = await session.bucket(history=5)
    for value in ("a", "b"):
        await session.call("kv_put", bucket=bucket, key="k", value=value)
    assert await session.call("kv_purge", bucket=bucket, key="k") == {
        "status": "success", "bucket": bucket, "key": "k",
    }  # fmt: skip
    assert (await session.call("kv_get", bucket=bucket, key="k", revision=1))["status"] == "not_found"


async def test_mark_of_nats_py_that_comes_too_early_hides_no_entry(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set while the entries are on their way, and then not once more behind them."""
    from nats.js.kv import KeyValue

    usual, marked = KeyValue.KeyWatcher.updates, set()

    async def updates(watcher: Any, timeout: float = 5.0) -> Any:
        if watcher not in marked:
            marked.add(watcher)
            return None
        return await usual(watcher, timeout) or await usual(watcher, timeout)

    bucket, empty = await session.bucket(history=5), await session.bucket()
    for key in ("a", "b", "b"):
        await session.call("kv_put", bucket=bucket, key=key, value=1)
    await session.call("kv_delete", bucket=bucket, key="b")
    monkeypatch.setattr(KeyValue.KeyWatcher, "updates", updates)
    assert (await session.call("kv_keys", bucket=bucket))["keys"] == ["a"]
    assert (await session.call("kv_keys", bucket=empty))["keys"] == []


# ── objects ─────────────────────────────────────────────────────────────────────────────────────


async def test_objects_from_put_to_delete(session: Session) -> None:
    bucket = await session.store()
    assert (await session.call("object_list", bucket=bucket))["objects"] == []
    text = "line\n" * 60_000  # three chunks
    put = await session.call("object_put", bucket=bucket, object="report.txt", data=text, description="d")
    assert put["size"] == 300_000
    got = await session.call("object_get", bucket=bucket, object="report.txt")
    assert got == {"status": "success", "bucket": bucket, "name": "report.txt", "data": text, "size": 300_000}
    info = await session.call("object_info", bucket=bucket, name="report.txt")
    assert info["digest"].startswith("SHA-256=")
    described = {"name": "report.txt", "size": 300_000, "description": "d", "chunks": 3, "digest": info["digest"]}
    assert info == {"status": "success", "bucket": bucket, **described}
    assert await session.call("object_list", bucket=bucket) == {
        "status": "success", "bucket": bucket, "objects": [described], "count": 1,
    }  # fmt: skip
    assert await session.call("object_delete", bucket=bucket, name="report.txt") == {
        "status": "success", "bucket": bucket, "name": "report.txt",
    }  # fmt: skip
    missing = await session.refused("object_get", bucket=bucket, name="report.txt")
    assert (str(missing), missing.kind) == ("object_get failed: the object does not exist", "not_found")


async def test_object_of_bytes_is_asked_for_as_base64(session: Session) -> None:
    bucket = await session.store()
    encoded = base64.b64encode(b"\xff\xfe").decode()
    await session.call("object_put", bucket=bucket, object="o", data=encoded, encoding="base64")
    assert (await session.call("object_get", bucket=bucket, object="o", encoding="base64"))["data"] == encoded
    error = await session.refused("object_get", bucket=bucket, object="o")
    assert (str(error), error.kind) == (
        "object 'o' is not UTF-8 text: ask for it with encoding: base64", "parse",
    )  # fmt: skip


async def test_an_object_above_the_limit_is_not_read(session: Session) -> None:
    most = 16 * 1024 * 1024
    bucket = await session.store()
    too_large = await session.refused("object_put", bucket=bucket, object="o", data="x" * (most + 1))
    assert str(too_large) == f"the data of object 'o' has {most + 1} bytes; one call carries at most {most}: split it"
    store = await session.connection.jetstream().object_store(bucket)
    await store.put("o", b"x" * (most + 1))
    too_large = await session.refused("object_get", bucket=bucket, object="o")
    assert str(too_large) == f"object 'o' has {most + 1} bytes; one call carries at most {most}: split it"


async def test_the_tasks_label_is_not_taken_for_the_objects_name(session: Session) -> None:
    """`object` wins over `name`, which one plane leaves in the config as the label."""
    bucket = await session.store()
    put = await session.call("object_put", name="the_label", object="real", bucket=bucket, data="x")
    assert put["name"] == "real"


def test_spellings_of_both_planes_are_taken() -> None:
    raw = {
        "operation": "KV.Get", "bucket": "b", "key": "k", "nats_url": "nats://h:1", "username": "u",
        "nats_password": "p", "credential": "alias", "timeout_seconds": "2s",
    }  # fmt: skip
    prepared = Registry([NatsTool()], plugins=False).prepare("nats", raw, tool_context())
    config = prepared.config
    assert prepared.warnings == ()
    assert (config.operation, config.url, config.user, config.auth) == ("kv_get", "nats://h:1", "u", "alias")
    assert (config.password, config.timeout) == ("p", 2.0)

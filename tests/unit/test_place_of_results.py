"""Where the result store of a control plane is: asked once for a server, with no result in the question; and under
which name a result is put there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.js.kv import VALID_KEY_RE

from noetl_worker.errors import MaybeProcessed, NotSent
from unit.planes import answer, plane
from unit.reports import STORED


class OldPlane:
    """v4.0.0: the store is at /api/api/result, and nothing at /api/result (result-put-single-prefix-404)."""

    prefix = "/api/api/result/"

    def __call__(self, method: str, path: str, body: Any) -> Any:
        if not path.startswith(self.prefix):
            return answer(404, {"detail": "Not Found"})
        return answer(200, STORED) if method == "PUT" else answer(200, "where")


async def test_place_of_the_store_is_asked_once_for_a_server_and_with_no_result() -> None:
    at, transport = plane(OldPlane())
    sending = [at.store_result(7, "start", b"[1]", source_step="start") for _ in range(5)]
    assert {answered.status for answered in await asyncio.gather(*sending)} == {200}
    asked = [(method, path.partition("?")[0]) for method, path, *_ in transport.sent]
    assert asked == [
        ("GET", "/api/result/resolve"),
        ("GET", "/api/api/result/resolve"),
        *[("PUT", "/api/api/result/7")] * 5,
    ]


async def test_server_that_was_replaced_by_another_version_is_asked_again() -> None:
    there = OldPlane()
    at, _ = plane(there)
    assert (await at.store_result(7, "start", b"[1]", source_step="start")).status == 200
    there.prefix = "/api/result/"
    assert (await at.store_result(7, "start", b"[1]", source_step="start")).status == 200


async def test_plane_that_cannot_say_where_its_store_is_has_been_sent_no_result() -> None:
    at, transport = plane(lambda *_: MaybeProcessed("no complete answer"))
    with pytest.raises(NotSent):
        await at.store_result(7, "start", b"[1]", source_step="start")
    assert [method for method, *_ in transport.sent] == ["GET"]


@pytest.mark.parametrize("step", ["start", "load data", "größe", "数据", "a.b..", "a:task_sequence", "a/b", "$x*>\\"])
async def test_result_has_a_name_of_which_nats_takes_a_key(step: str) -> None:
    """In the key that the Python plane makes of its reference; else one server alone has the result, in its memory."""
    at, transport = plane(lambda *_: answer(200, STORED))
    await at.store_result(7, step, b"[1]", source_step=step)
    body = transport.sent[-1][2]
    assert body["source_step"] == step
    key = f"execution/7/result/{body['name']}/403da428".replace("/", "_")
    assert VALID_KEY_RE.match(key)
    assert "" not in key.split("."), "NATS takes no empty token"
    assert "/" not in body["name"]

"""Where the result store of a control plane is, and under which name a result is put there."""

from __future__ import annotations

from typing import Any

import pytest
from nats.js.kv import VALID_KEY_RE

from unit.planes import answer, plane
from unit.reports import STORED


class OldPlane:
    """v4.0.0: the store is at /api/api/result, and nothing at /api/result (result-put-single-prefix-404)."""

    prefix = "/api/api/result/"

    def __call__(self, method: str, path: str, body: Any) -> Any:
        if not path.startswith(self.prefix):
            return answer(404, {"detail": "Not Found"})
        return answer(200, STORED)


async def test_place_where_a_server_has_its_store_is_tried_first_until_another_version_runs() -> None:
    there = OldPlane()
    at, transport = plane(there)
    for prefix in ("/api/api/result/", "/api/api/result/", "/api/result/"):
        there.prefix = prefix
        assert (await at.store_result(7, "start", b"[1]", source_step="start")).status == 200
    single, doubled = "/api/result/7", "/api/api/result/7"
    assert [path for _, path, *_ in transport.sent] == [single, doubled, doubled, doubled, single]


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

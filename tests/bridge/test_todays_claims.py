"""Recorded claims of server 3.83.1: what is new in them."""

from __future__ import annotations

from bridge.feed import recorded
from compat.recorded_claims import hydrated
from unit.planes import answer


async def test_boolean_of_a_claim_stays_one() -> None:
    claim = next(line["resp"] for line in recorded("booleans-claim.jsonl") if line["path"].endswith("/claim"))
    command = await hydrated("rust", claim, lambda *_: answer(404, {"error": "not found"}))
    assert (command.input["f"], command.input["n"]) == (True, False)


async def test_commands_of_a_cursor_loop_are_plain_ones() -> None:
    claims = [line["resp"] for line in recorded("cursor-claims.jsonl") if line["path"].endswith("/claim")]
    assert [claim["meta"]["cursor"]["phase"] for claim in claims] == ["claim", "body", "claim"]
    taken, body, _ = [await hydrated("rust", claim, lambda *_: answer(404, {"error": "not found"})) for claim in claims]
    assert (taken.kind, taken.config["auth"]) == ("postgres", "pg_k8s")
    assert (body.kind, body.input["row"]) == ("python", {"id": 1})

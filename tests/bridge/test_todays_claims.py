"""Recorded claims of server 3.83.1: what is new in them."""

from __future__ import annotations

from bridge.feed import recorded
from compat.recorded_claims import hydrated
from unit.planes import answer


async def test_boolean_of_a_claim_stays_one() -> None:
    claim = next(line["resp"] for line in recorded("booleans-claim.jsonl") if line["path"].endswith("/claim"))
    command = await hydrated("rust", claim, lambda *_: answer(404, {"error": "not found"}))
    assert (command.input["f"], command.input["n"]) == (True, False)

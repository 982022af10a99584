"""What an HTTP status means is one table: what each caller makes of every status."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.errors import ControlPlaneError, NotSent, ServerRefused
from noetl_worker.models import AuthRefusedClaim, ClaimRefused, Dialect, RetryLater
from noetl_worker.pipeline.claim.claim import read_claim
from noetl_worker.remote.plane.answers import MAX_RETRY_AFTER_S, MEANING, Meaning, min_retry_delay_s, retry_after_s
from noetl_worker.remote.plane.client import ControlPlaneClient, refusal
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.patience import is_passing
from noetl_worker.remote.plane.plane_watch import PlaneWatch
from noetl_worker.remote.plane.send_status import SendStatus, judge
from noetl_worker.remote.transport.transport import Response
from unit.planes import ScriptedTransport, answer, settings

AUTH, PASSING, OVERLOADED = {401, 403}, {408, 425}, {429, 502, 503, 504}


def row(status: int) -> Meaning:
    if 200 <= status < 300:
        return Meaning.ACCEPTED
    for meaning, statuses in ((Meaning.AUTH, AUTH), (Meaning.PASSING, PASSING), (Meaning.OVERLOADED, OVERLOADED)):
        if status in statuses:
            return meaning
    return Meaning.UNCERTAIN if status >= 500 or 300 <= status < 400 else Meaning.REFUSED


def test_every_number_that_a_server_can_send_has_a_meaning() -> None:
    statuses = [0, *range(100, 1000)]
    assert {status: MEANING[status] for status in statuses} == {status: row(status) for status in statuses}


def test_claim_event_and_other_requests_agree_about_a_status(dialect: Dialect) -> None:
    for status in (*range(100, 200), *range(202, 404), *range(405, 409), *range(410, 600), 999):
        said, means = answer(status, {"detail": "x"}), row(status)
        claim, how = read_claim(said, dialect), judge(said)
        is_again = means in (Meaning.AUTH, Meaning.PASSING, Meaning.OVERLOADED)
        assert is_passing(refusal("x", said)) is is_again, status
        assert (how is SendStatus.PASSING) is (is_again or status // 100 == 3), status
        assert (how is SendStatus.ACCEPTED) is (means is Meaning.ACCEPTED), status
        expected = AuthRefusedClaim if means is Meaning.AUTH else RetryLater
        assert isinstance(claim, ClaimRefused if means is Meaning.REFUSED else expected), status
        if isinstance(claim, RetryLater):
            assert claim.is_server_error is (status >= 500 or status < 400), status


def test_only_what_the_plane_says_of_a_set_refuses_it() -> None:
    statuses = range(300, 600)
    refused = {one for one in statuses if judge(answer(one, {"detail": "x"})) is SendStatus.REFUSED}
    assert refused == {400, 409, 413, 422}
    assert all(judge(answer(one, b"<html>")) is not SendStatus.REFUSED for one in statuses)


@pytest.mark.parametrize("status", [200, 404, 408, 409, 429, 500, 503])
async def test_gate_closes_for_what_is_overloaded_alone(status: int) -> None:
    client = ControlPlaneClient(ScriptedTransport(lambda *_: answer(status, {}, retry_after="9")), settings())
    gate = Gate(4)
    await client.send("GET", f"{client.servers.configured}/x", gate=gate)
    assert gate.has_room() is (row(status) is not Meaning.OVERLOADED)


BAD_GATEWAY = b"<html>502 Bad Gateway</html>"


@pytest.mark.parametrize(
    ("said", "outages"),
    [
        (answer(502, BAD_GATEWAY), 1),
        (answer(503, b"no healthy upstream"), 1),
        (answer(504, {"detail": "upstream"}), 1),
        (answer(503, {"detail": {"code": "db_unavailable"}}), 0),
        (answer(429, {"detail": "busy"}), 0),
        (answer(404, BAD_GATEWAY), 0),
    ],
    ids=lambda one: f"{one.status}-{type(one.json()).__name__}" if isinstance(one, Response) else str(one),
)
async def test_proxy_that_finds_no_plane_is_an_outage_of_it(said: Response, outages: int) -> None:
    """What a plane had in memory is lost then; its own 503 says that it is there."""
    client = ControlPlaneClient(ScriptedTransport(lambda *_: said), settings())
    url, one, another = f"{client.servers.configured}/x", Gate(4), Gate(4)
    await client.send("GET", url, gate=one)
    await client.send("POST", url, b"{}", gate=another, on_sent=lambda: None)
    assert (one.outages, another.outages) == (outages, outages)


@pytest.mark.parametrize(("status", "passes"), [(408, True), (425, True), (429, True), (500, True), (302, False)])
async def test_plane_whose_kind_is_asked_for_may_be_in_trouble_for_a_while(status: int, passes: bool) -> None:
    """A 408 or 425 at the start was no plane at all, and ended the worker."""
    client = ControlPlaneClient(ScriptedTransport(lambda *_: answer(status, {})), settings(NOETL_CONTROL_PLANE="auto"))
    with pytest.raises(ControlPlaneError) as raised:
        await client.plane("")
    assert isinstance(raised.value, ServerRefused) is passes


def test_retry_after_is_a_floor_within_bounds() -> None:
    told: list[Any] = ["7", "9000", "soon", "-1", "1.5", "", "²"]
    assert [retry_after_s(answer(503, {}, retry_after=one)) for one in told] == [7.0, 3600.0, *[None] * 5]
    assert [min_retry_delay_s(one) for one in (None, 0.0, 7.0, 3600.0)] == [0.0, 0.0, 7.0, MAX_RETRY_AFTER_S]


@pytest.mark.parametrize(
    ("said", "outages"), [(answer(502, BAD_GATEWAY), 1), (NotSent("refused"), 1), (answer(404), 0)]
)
async def test_worker_at_rest_sees_an_outage_behind_a_proxy_too(said: Any, outages: int) -> None:
    client = ControlPlaneClient(ScriptedTransport(lambda *_: said), settings())

    async def has_bridge() -> bool:
        return False

    await PlaneWatch(client, has_bridge).check()
    assert client.servers.server_at(client.servers.configured).gate.outages == outages

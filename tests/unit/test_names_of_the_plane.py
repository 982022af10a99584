"""Results with fields whose names the Python plane has for itself: it puts its own in their place, or refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.authoring.dev.server.python_events import check_payload
from noetl_worker.remote.plane.python.rules import response_field
from noetl_worker.text import json_text
from unit.reports import call_done, parsed, report_of, tell

LARGE = "word " * 30_000


@pytest.mark.parametrize("name", ["data", "status", "context", "reference", "ref", "_ref"])
async def test_large_result_with_a_field_that_the_plane_would_hide_goes_out_whole(
    name: str,
) -> None:
    """An HTTP answer: `{{ step.data.rows }}` of a single tool is rendered by the plane, and was empty."""
    data = {"status_code": 200, name: {"rows": [{"id": 7}], "text": LARGE}}
    report = await report_of(data)
    assert report.upload is not None
    assert parsed(report.response) == data


@pytest.mark.parametrize(
    "hidden",
    [{"_internal_data": 1}, {"_internal_data": {"a": 1}}, {"a": {"_internal_data": 1}}, {"b": [{"_internal_data": 1}]}],
)
@pytest.mark.parametrize("text", ["small", LARGE])
async def test_key_that_the_plane_refuses_is_in_the_response_alone(hidden: Any, text: str) -> None:
    """`check_payload` says what the real plane says (recorded: refused-*-internal-data*)."""
    data = {"n": 7, "data": text, **hidden}
    transport = await tell(await report_of(data))
    for body in transport.bodies("/api/events/batch"):
        for event in body["events"]:
            check_payload(event["payload"])
    done = call_done(transport)
    assert (done["response"], done["result"]["context"]["n"]) == (data, 7)
    assert ("reference" in done["result"]) == (text is LARGE)


def test_key_that_the_plane_refuses_is_in_no_rescue() -> None:
    response = {"n": 7, "a": [{"_internal_data": {"b": 1}, "id": 2**70}]}
    made = response_field({"status": "COMPLETED"}, json_text.embed(json_text.dumps(response)))
    check_payload(made)
    assert made["result"]["context"] == {"n": 7, "a": [{"id": str(2**70)}]}

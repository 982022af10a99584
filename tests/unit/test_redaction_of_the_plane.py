"""What the result store of the Python plane takes for a secret: such a result goes into the event as well."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.authoring.dev.server.stored_form import REDACTED, as_stored
from noetl_worker.models import Dialect, Report
from noetl_worker.remote.plane.python.store import may_redact
from noetl_worker.text import json_text
from unit.reports import parsed, report_of, tell

WORDS = "a word " * 20_000

CHANGED = {
    "object under a name with a word of it": {"authors": {"first": "Ada"}},
    "list under one": {"rows": [{"X-Certificate-IDs": [1]}]},
    "capitals and dashes": {"API-Key": [1]},
    "key with quotes": {'"token" of\\': [1]},
    "key beyond ASCII": {"tokens für alle": [1]},
    "header of whatever value": {"headers": {"Set-Cookie": "a=b"}},
    "number under a header's name": {"cookie": 7},
    "names of the keychain": {"keychain": "x"},
    "bearer": ["Bearer of good news"],
    "basic": {"title": "Basic usage of the tool"},
    "basic, with a tab": {"title": "basic\tusage"},
    "basic, with a space beyond ASCII": {"title": "basic\u2003usage"},
    "token of three parts": ["eyJhbGciOiJI.eyJzdWIiOiIxMjM.SflKxwRJSM"],
    "key of a provider": ["say sk-abcdefghijklmnop"],
    "key of a provider in a second line": ["say\nsk-abcdefghijklmnop"],
    "other keys of providers": ["AIza" + "a" * 30],
    "token of a repository": ["ghp_" + "a1" * 12],
    "token of a chat": ["xoxb-" + "a1" * 12],
    "private key": ["-----BEGIN RSA PRIVATE KEY-----\nabc"],
    "link with a token": ["https://a.test/x?page=2&access_token=abc"],
    "link with a key": ["https://a.test/x?key=abc"],
    "link with a signature": ["https://a.test/x?Signature=abc"],
    "link with a password": ["postgres://user:pass@db/x"],
    "link with a quote in its password": ['postgres://user:pa"ss@db/x'],
    "link with a name": ["git+ssh://git@host.test/x"],
}
KEPT: dict[str, Any] = {
    "short text under a name": {"password": "sample-password", "token": "sample-token", "author": "Ada"},
    "number under a name": {"tokens": 512, "authorised": True, "certificate": None},
    "words in texts": {"text": 'the token: [1, 2], "author": {', "rows": [{"a": 'auth":[1]'}]},
    "list after a name": {"author": "Ada", "articles": [1], "token": "x", "rows": [{"a": 1}]},
    "names in a list": [["token", "author"], [1, 2], {"secret": "s"}],
    "basic in a text": ["the Basic usage", {"basic": "usage", "bearer": "of news"}],
    "links": [
        "https://a.test/@name/x?page=2",
        "https://a.test",
        "a@b.test",
        {"url": "https://a.test", "to": "a@b.test"},
    ],
    "task": ["task-management-of-many", "risk_averse_investments", "/path?monkey=abc"],
}


@pytest.mark.parametrize("value", CHANGED.values(), ids=CHANGED)
def test_value_that_the_store_changes_is_found(value: Any) -> None:
    assert as_stored(value) != value
    assert may_redact(json_text.dumps({"rows": [{"a": value}]}))
    assert may_redact(json_text.dumps(value))


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
def test_value_that_the_store_keeps_is_not(value: Any) -> None:
    assert as_stored(value) == value
    assert not may_redact(json_text.dumps(value))


def test_store_keeps_what_is_deep_and_the_shape_of_the_rest() -> None:
    """The review's example, and the recorded one (result-get-secret-like)."""
    article = {"id": 1, "authors": ["Ada"], "author": "Ada", "tokens": 3}
    assert as_stored({"articles": [article]}) == {"articles": [{**article, "authors": REDACTED}]}
    assert as_stored({"password": "sample-password", "note": "plain"}) == {
        "password": "sample-password",
        "note": "plain",
    }
    assert as_stored({"a": 1, "keychain": {"b": "c"}, "Authorization": ""}) == {"a": 1, "Authorization": REDACTED}


def test_search_does_not_read_a_text_again_for_each_word_in_it() -> None:
    """Once for each it would take some minutes."""
    assert not may_redact(json_text.dumps(["token auth secret " * 100_000]))


async def warned(report: Report) -> list[Any]:
    with capture_logs() as lines:
        await tell(report)
    return [(line["event"], line["step"], line["log_level"]) for line in lines if "changed" in line["event"]]


@pytest.mark.parametrize(
    "value", [{"authors": ["Ada"]}, {"Certificates": {"n": 1}}, "Basic usage", "https://a.test/x?page=2&token=abc"]
)
async def test_large_result_that_the_store_changes_is_in_the_event_too(value: Any) -> None:
    data = {"rows": [value], "text": WORDS}
    report = await report_of(data)
    assert report.upload is not None
    assert parsed(report.response) == data
    assert await warned(report) == []


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
async def test_one_that_the_store_keeps_is_not(value: Any) -> None:
    report = await report_of({"rows": [value], "text": WORDS})
    assert (report.upload is not None, report.response) == (True, None)
    assert await warned(report) == []


async def test_one_that_the_event_has_no_room_for_is_a_warning_that_names_the_step() -> None:
    report = await report_of({"authors": ["Ada"], "text": WORDS * 14})
    assert (report.upload is not None, report.response, report.error) == (True, None, None)
    assert await warned(report) == [("result_changed_by_store", "start", "warning")]


async def test_store_of_the_rust_plane_changes_nothing() -> None:
    report = await report_of({"authors": ["Ada"], "text": WORDS}, Dialect.RUST)
    assert report.response is None

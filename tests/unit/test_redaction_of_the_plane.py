"""What the Python plane's result store takes for a secret, as in the development plane; no result loses it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_worker.authoring.dev.server.stored_form import REDACTED, as_stored
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text import json_text
from unit.reports import parsed, report_of

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
def test_value_that_looks_like_a_secret_is_changed(value: Any) -> None:
    assert as_stored(value) != value


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT)
def test_other_values_are_kept(value: Any) -> None:
    assert as_stored(value) == value


def test_store_keeps_what_is_deep_and_the_shape_of_the_rest() -> None:
    """The review's example, and the recorded one (result-get-secret-like)."""
    article = {"id": 1, "authors": ["Ada"], "author": "Ada", "tokens": 3}
    assert as_stored({"articles": [article]}) == {"articles": [{**article, "authors": REDACTED}]}
    assert as_stored({"password": "sample-password", "note": "plain"}) == {
        "password": "sample-password",
        "note": "plain",
    }
    assert as_stored({"a": 1, "keychain": {"b": "c"}, "Authorization": ""}) == {"a": 1, "Authorization": REDACTED}


@pytest.mark.parametrize("value", [{"authors": ["Ada"]}, "Basic usage", "https://a.test/x?page=2&token=abc"])
async def test_large_result_is_had_from_the_store_as_it_is(value: Any) -> None:
    data = {"rows": [value, 1], "text": WORDS}
    report = await report_of(data)
    assert report.upload is not None
    stored = json_text.dumps(as_stored(json.loads(report.upload.data)))
    assert json.loads(RULES[Dialect.PYTHON].whole_result(stored)) == data
    assert parsed(report.response) == data, "templates of arcs read the event"

"""A claim without a mark has, when it is walked, nothing of that kind in it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from noetl_worker.command.claim import marks_of
from noetl_worker.engine.pure.redact import SENSITIVE_PAIRS, SENSITIVE_WORDS, Named, named_by
from noetl_worker.marks import ALL
from noetl_worker.secrets.known import KnownSecrets
from noetl_worker.templates.template import has_template

PIECES = ["{{ a }}", "{%", "{", "{#", "%", "pass", "Word", "api", "_key", "auth", "Session", "id", "x", "://u:p@h"]
TEXTS = st.lists(st.sampled_from([*PIECES, *sorted(SENSITIVE_WORDS)]), max_size=4).map("".join)
KEYS = st.one_of(TEXTS, st.sampled_from(["a", "value", "workload", "$noetl_ref", "kind"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS, st.just("result_ref")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


def keys_and_texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in keys_and_texts(item))]
    if isinstance(value, list):
        return [text for item in value for text in keys_and_texts(item)]
    return [value] if isinstance(value, str) else []


@settings(max_examples=400)
@given(VALUES, st.booleans(), st.booleans())
def test_what_has_no_mark_has_nothing_when_it_is_walked(value: Any, is_inside: bool, is_ascii: bool) -> None:
    inside = json.dumps(value) if is_inside else value  # a field of the claim may be JSON text
    marks = marks_of(json.dumps({"context": inside}, ensure_ascii=is_ascii).encode())
    if not marks.templates:
        assert not has_template(value)
    if not marks.references:
        assert not {"$noetl_ref", "result_ref", "temp_ref"} & set(keys_and_texts(value))
    if not marks.secrets:
        known = KnownSecrets()
        known.add_inline(value)
        assert known.texts().all == ()


def test_every_word_that_names_a_secret_leaves_a_mark() -> None:
    pairs = [mark.join(pair) for pair in SENSITIVE_PAIRS for mark in ("_", "")]
    names = [*SENSITIVE_WORDS, *pairs]
    for name in [*names, *(name.upper() for name in names), *(name.title() for name in names)]:
        if named_by(name) is not Named.NOTHING:
            assert marks_of(json.dumps({name: "v"}).encode()).secrets, name


def test_escapes_that_could_hide_a_mark_set_all_marks() -> None:
    assert marks_of(rb'{"a": "\u007b{ x }}"}') == ALL
    assert marks_of(rb'{"\u0070assword": "x"}') == ALL
    assert marks_of(rb'{"context": "{\"a\": \"\\u007b\\u007b x\"}"}') == ALL


def test_long_claim_is_searched_to_its_end() -> None:
    long = b'{"a": "' + b"x" * 500_000 + b'"'
    assert marks_of(long + b"}") == (False, False, False)
    assert marks_of(long + b', "b": "{{ c }}"}') == (True, False, False)


def test_plain_claim_has_no_mark() -> None:
    body = json.dumps({"action": "noop", "context": {"tool_config": {"kind": "noop"}, "render_context": {"n": 7}}})
    assert marks_of(body.encode()) == (False, False, False)

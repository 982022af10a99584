"""A claim without a mark has, when it is walked, nothing of that kind in it: both engines."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noetl_worker.engine.protocol import REFERENCES, SECRETS, TEMPLATES
from noetl_worker.engine.pure.redact import SENSITIVE_PAIRS, SENSITIVE_WORDS, Named, named_by
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.templates.template import has_template

ALL = TEMPLATES | REFERENCES | SECRETS
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=VALUES, is_inside=st.booleans(), is_ascii=st.booleans())
def test_what_has_no_mark_has_nothing_when_it_is_walked(
    engine: Any, value: Any, is_inside: bool, is_ascii: bool
) -> None:
    inside = json.dumps(value) if is_inside else value  # a field of the claim may be JSON text
    found = engine.find_marks(json.dumps({"context": inside}, ensure_ascii=is_ascii).encode())
    if not found & TEMPLATES:
        assert not has_template(value)
    if not found & REFERENCES:
        assert not {"$noetl_ref", "result_ref", "temp_ref"} & set(keys_and_texts(value))
    if not found & SECRETS:
        known = KnownSecrets()
        known.add_inline(value)
        assert known.texts().all == ()


def test_every_word_that_names_a_secret_leaves_a_mark(engine: Any) -> None:
    pairs = [mark.join(pair) for pair in SENSITIVE_PAIRS for mark in ("_", "")]
    names = [*SENSITIVE_WORDS, *pairs]
    for name in [*names, *(name.upper() for name in names), *(name.title() for name in names)]:
        if named_by(name) is not Named.NOTHING:
            assert engine.find_marks(json.dumps({name: "v"}).encode()) & SECRETS, name


def test_escapes_that_could_hide_a_mark_set_all_marks(engine: Any) -> None:
    assert engine.find_marks(rb'{"a": "\u007b{ x }}"}') == ALL
    assert engine.find_marks(rb'{"\u0070assword": "x"}') == ALL
    assert engine.find_marks(rb'{"context": "{\"a\": \"\\u007b\\u007b x\"}"}') == ALL


def test_long_claim_is_searched_to_its_end(engine: Any) -> None:
    long = b'{"a": "' + b"x" * 500_000 + b'"'
    assert engine.find_marks(long + b"}") == 0
    assert engine.find_marks(long + b', "b": "{{ c }}"}') == TEMPLATES


def test_mark_is_found_wherever_it_lies_in_a_long_claim(engine: Any) -> None:
    """The Rust engine searches 8 KiB at a time: a text across two parts is found too."""
    texts = {"{{": TEMPLATES, "{%": TEMPLATES, "_ref": REFERENCES, "CoNNectioN": SECRETS, "://": SECRETS, "\\u00": ALL}
    for text, mark in texts.items():
        for before in [*range(8160, 8200), *range(16340, 16390), 20_000 - len(text)]:
            body = (b"x" * before + text.encode()).ljust(20_000, b"y")
            assert engine.find_marks(body) == mark, (text, before)


def test_plain_claim_has_no_mark(engine: Any) -> None:
    body = json.dumps({"action": "noop", "context": {"tool_config": {"kind": "noop"}, "render_context": {"n": 7}}})
    assert engine.find_marks(body.encode()) == 0

"""Arc conditions and server-side rendering."""

from __future__ import annotations

from typing import Any

import pytest

from noetl_worker.dev.rendering import holds, render_fields

SCOPE: dict[str, Any] = {"n": 5, "empty": [], "off": "off", "word": "yes", "nothing": None, "x": {"y": "{{ n }}"}}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (None, True),
        (True, True),
        (False, False),
        ("{{ n > 3 }}", True),
        ("n > 3", True),
        ("{{ n > 7 }}", False),
        ("{{ empty }}", False),
        ("{{ nothing }}", False),
        ("{{ missing.deep.down }}", False),
        ("{{ off }}", False),
        (" {{ word }} ", True),
        ("{% if n > 3 %} None {% endif %}", False),
        ("{{ 0 }}", False),
        ("{{ 1 // 0 }}", False),
    ],
)
def test_what_counts_as_true(when: Any, expected: bool) -> None:
    assert holds(when, SCOPE, "here") is expected


def test_a_condition_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert not holds("{{ 1 // 0 }}", SCOPE, "step 'a', next.arcs[0].when")
    assert "step 'a', next.arcs[0].when: the condition cannot be evaluated" in caplog.text


def test_lone_expressions_keep_their_type_and_values_are_not_rendered_again() -> None:
    given = {"a": ["{{ n }}", "n={{ n }}"], "b": "{{ x.y }}", "c": 7, "d": "plain"}
    assert render_fields(given, SCOPE) == {"a": [5, "n=5"], "b": "{{ n }}", "c": 7, "d": "plain"}


def test_keychain_references_are_left_to_the_worker() -> None:
    given = {"pure": "{{ keychain.api.token }}", "mixed": "Bearer {{ keychain.api.token }}"}
    assert render_fields(given, SCOPE) == {
        "pure": {"$noetl_ref": {"kind": "keychain", "name": "api", "field": "token"}},
        "mixed": "Bearer {{ keychain.api.token }}",
    }


def test_a_template_that_fails_stays_as_text() -> None:
    assert render_fields("{{ 1 // 0 }}", SCOPE) == "{{ 1 // 0 }}"

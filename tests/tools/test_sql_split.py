"""Where a statement ends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noetl_worker.tools.sql.split import bare, statements


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" ;; ; -- nothing\n /* ; */", []),
        ("select 1", ["select 1"]),
        ("select 1; select 2;", ["select 1", "select 2"]),
        ("select ';' ; select 'it''s; fine'", ["select ';'", "select 'it''s; fine'"]),
        ("select E'a\\'; b' ; 2", ["select E'a\\'; b'", "2"]),
        ("select type'a\\'; 2", ["select type'a\\'", "2"]),
        ('select 1 as "a;b""c;"; 2', ['select 1 as "a;b""c;"', "2"]),
        ("select 1 -- it's; a comment\n; 2", ["select 1 -- it's; a comment", "2"]),
        ("select 1 /* a ; /* nested ; */ it's */ ; 2", ["select 1 /* a ; /* nested ; */ it's */", "2"]),
        ("do $$ begin; end $$; 2", ["do $$ begin; end $$", "2"]),
        ("do $x$ a; $$ b; $y$ c; $x$; 2", ["do $x$ a; $$ b; $y$ c; $x$", "2"]),
        ("select a$b$c; 2", ["select a$b$c", "2"]),
        ("select $1; select $2", ["select $1", "select $2"]),
        ("select 'open ; 2", ["select 'open ; 2"]),
        ("select 1 /* open ; 2", ["select 1 /* open ; 2"]),
        ("select $$open ; 2", ["select $$open ; 2"]),
        ("-- first\nselect 1", ["-- first\nselect 1"]),
        ("select 'ü;ß'; 2", ["select 'ü;ß'", "2"]),
    ],
)
def test_statements_of(text: str, parts: list[str]) -> None:
    assert statements(text) == parts


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ""),
        ("select '%s', $1;", "select  , $1;"),
        ('a "b $1" -- $2\nc /* $3 /* $4 */ $5 */ d', "a    \nc   d"),
        ("$x$ $1 $$ $x$ || E'\\' $2' || $3", "  ||   || $3"),
        ("select 'open $1", "select  "),
    ],
)
def test_code_without_its_strings_names_and_comments(text: str, code: str) -> None:
    assert bare(text) == code


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text("ab'\"$-/*; \nE\\", max_size=12), max_size=6))
def test_any_text_is_split_without_losing_code(pieces: list[str]) -> None:
    text = ";".join(pieces)
    found = statements(text)
    for statement in found:
        assert statement in text
    assert sum(map(len, found)) <= len(text)

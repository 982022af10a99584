"""What leaves the worker: by key, by value, by shape; the same rules for values, results and free text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.vectors import VECTORS, vectors
from noetl_worker.engine.pure.redact import Named, named_by
from noetl_worker.models import FitRules, SecretTexts
from noetl_worker.text.secrets.redaction import redact_fields, redact_text, redact_value, remove_known

KEYS = json.loads((VECTORS / "keys.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", KEYS["sensitive"])
def test_whole_word_of_a_secret_is_redacted(engine: Any, key: str) -> None:
    assert named_by(key) is Named.SECRET
    assert engine.fit_result(json.dumps({key: "value"}).encode(), FitRules()).redactions == 1


@pytest.mark.parametrize("key", KEYS["harmless"])
def test_other_keys_stay(engine: Any, key: str) -> None:
    assert named_by(key) is Named.NOTHING
    assert engine.fit_result(json.dumps({key: "value"}).encode(), FitRules()).redactions == 0


@pytest.mark.parametrize("key", KEYS["plural"])
def test_key_that_names_several_secrets_hides_texts_and_no_counts(engine: Any, key: str) -> None:
    assert named_by(key) is Named.SECRETS
    for secret in ("value", "5", ["value"], [{"a": 1, "b": "value"}]):
        assert engine.fit_result(json.dumps({key: secret}).encode(), FitRules()).redactions == 1
    for count in (5, 0.5, None, True, [101, 2023], {"input": 5, "output": 7}, {}, []):
        assert engine.fit_result(json.dumps({key: count}).encode(), FitRules()).redactions == 0


def test_value_and_result_are_redacted_alike(engine: Any) -> None:
    for row in vectors("fit", "more_fit"):
        secrets = tuple(row["rules"].get("secrets", ()))
        body = engine.fit_result(row["data"].encode(), FitRules(secrets=secrets)).body
        assert repr(redact_value(json.loads(row["data"]), SecretTexts(secrets))) == repr(json.loads(body)), row["id"]


def test_value_is_copied_not_changed() -> None:
    value = {"password": "x", "rows": [{"token": "y"}]}
    assert redact_value(value) == {"password": "[REDACTED]", "rows": [{"token": "[REDACTED]"}]}
    assert value == {"password": "x", "rows": [{"token": "y"}]}


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("connect to postgres://me:pw@h/d failed", "connect to postgres://me:[REDACTED]@h/d failed"),
        ("redis://:pw@h", "redis://:[REDACTED]@h"),
        ("GET /x?api_key=abc&page=2", "GET /x?api_key=[REDACTED]&page=2"),
        ('host=h password="a b" user=u', "host=h password=[REDACTED] user=u"),
        ("Authorization: Bearer abc.def", "Authorization: [REDACTED]"),
        ("missing bearer token", "missing bearer token"),
        ("basic authentication failed", "basic authentication failed"),
        ("Basic dXNlcjpwYXNz", "[REDACTED]"),
        ("unexpected token: <", "unexpected token: <"),
        ("max_tokens=5 page_token=7", "max_tokens=5 page_token=7"),
        ("the value s3cr3t-value leaked", "the value [REDACTED] leaked"),
        ("http://host:80/path@x", "http://host:80/path@x"),
        ("ftp://Bearer abcdefg:pw@h", "ftp://[REDACTED]:[REDACTED]@h"),
        ("pg://u:p@ss@w0rd@host:5432/d", "pg://u:[REDACTED]@host:5432/d"),
        ('{"a":"pg://u:p@h","b":"x@y"}', '{"a":"pg://u:[REDACTED]@h","b":"x@y"}'),
        ("password='a b'://u:pw@h", "password=[REDACTED]"),
        ("password='a b' pg://u:pw@h", "password=[REDACTED] pg://u:[REDACTED]@h"),
    ],
)
def test_free_text(chosen: Any, text: str, redacted: str) -> None:
    assert redact_text(text, SecretTexts(("s3cr3t-value",))) == redacted


@pytest.mark.parametrize(
    ("written", "secrets"),
    [
        (r'"line\nBearer\tabcdefghij"', ()),
        (r'"line\nBearer \u0061bcdefghij"', ()),
        (r'"line\nhttps:\/\/ann:hunter22@host"', ()),
        (r'"line\nhunter\u0032secret"', ("hunter2secret",)),
        (r'"line\nab\/cd1234"', ("ab/cd1234",)),
        (r'"line\nfirst\nsecond"', ("first\nsecond",)),
        (r'"line\nquo\"ted1"', ('quo"ted1',)),
        (r'"line\nback\\slash1"', ("back\\slash1",)),
        (r'"line\nplain-one"', ("plain-one",)),
    ],
)
def test_escape_in_a_text_hides_no_secret(engine: Any, written: str, secrets: tuple[str, ...]) -> None:
    fitted = engine.fit_result(written.encode(), FitRules(secrets=secrets))
    assert fitted.redactions == 1
    assert b"[REDACTED]" in fitted.body


def test_halves_of_surrogate_pairs_are_no_error(engine: Any) -> None:
    assert (
        engine.redact_text("file \udcff password=x \ud83d\ude00", ["\udcffabc", "name"])
        == "file ? password=[REDACTED] ??"
    )
    assert engine.fit_result(b'"name"', FitRules(secrets=("\udcffabc", "name"))).body == b'"[REDACTED]"'


def test_reference_stays_whole_and_a_secret_in_its_place_is_replaced(engine: Any) -> None:
    secret = "hunter22"
    body = {
        "_ref": secret,
        "a": {"kind": "result_ref", "ref": f"noetl://x/{secret}"},
        "b": {
            "$noetl_ref": {"kind": "keychain", "name": "password", "token": "Bearer abcdefghijk", "n": ["\u00e9", 1]}
        },
    }
    fitted = engine.fit_result(json.dumps(body).encode(), FitRules(secrets=(secret,)))
    mark = "[REDACTED]"
    assert (json.loads(fitted.body), fitted.redactions) == ({**body, "_ref": mark}, 1)


def test_address_of_a_stored_value_stays_whole_in_any_text(engine: Any) -> None:
    rules = FitRules(secrets=("hunter2hunter2",), secret_words=("noetl", "hourly-run"))
    body = {
        "uri": "noetl://7/hourly-run/hunter2hunter2",
        "text": "see <noetl://7/hourly-run> of 'hourly-run' at noetl://7/x: hunter2hunter2",
    }
    wanted = {**body, "text": "see <noetl://7/hourly-run> of '[REDACTED]' at noetl://7/x: [REDACTED]"}
    assert json.loads(engine.fit_result(json.dumps(body).encode(), rules).body) == wanted
    shown = "open noetl://7/hourly-run for [REDACTED]"
    assert engine.redact_text("open noetl://7/hourly-run for noetl", (), ("noetl", "hourly-run")) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("hourly-run", "the hourly-run.", '"hourly-run"', "hourly-run-hourly-run", "a/hourly-run/b", "x=hourly-run&y"),
        *(
            "line\\nhourly-run",
            "a\\u00e9hourly-run",
            "a\\x1bhourly-run",
            "a%2Fhourly-run%2fb",
            "\x1b[1;31mhourly-run\x1b[0m",
        ),
        *("\u201ehourly-run\u201c", "\u00abhourly-run\u00bb", "\u5bc6hourly-run\u7801", "hourly-run\u2026"),
    ],
)
def test_word_is_replaced_whatever_stands_around_it(engine: Any, text: str) -> None:
    wanted = text.replace("hourly-run", "[REDACTED]")
    rules = FitRules(secret_words=("hourly-run",))
    assert json.loads(engine.fit_result(json.dumps([text, 1]).encode(), rules).body) == [wanted, 1]
    assert json.loads(engine.fit_result(json.dumps([text], ensure_ascii=False).encode(), rules).body) == [wanted]
    assert engine.redact_text(text, (), ("hourly-run",)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        *("hourly-running", "unhourly-run", "hourly-run2", "2hourly-run", "_hourly-run", "hourly-run_"),
        *("caf\u00e9hourly-run", "hourly-run\u044f", "hourly run", "Hourly-Run", "nhourly-run", "100m hourly-runs"),
    ],
)
def test_word_inside_of_a_longer_one_stays(engine: Any, text: str) -> None:
    rules = FitRules(secret_words=("hourly-run",))
    assert json.loads(engine.fit_result(json.dumps({text: text}).encode(), rules).body) == {text: text}
    assert engine.redact_text(text, (), ("hourly-run",)) == text


def test_word_is_replaced_in_a_key_only_where_it_is_the_whole_key(engine: Any) -> None:
    rules = FitRules(secrets=("Zq7x-hunter",), secret_words=("hourly-run",))
    body = {"hourly-run": 1, "hourly-run total": 2, "the hourly-run": 3, "for Zq7x-hunter": 4}
    fitted = engine.fit_result(json.dumps(body).encode(), rules)
    wanted = {"[REDACTED]~0": 1, "hourly-run total": 2, "the hourly-run": 3, "[REDACTED]~3": 4}
    assert (json.loads(fitted.body), fitted.redactions) == (wanted, 2)


@pytest.mark.parametrize("others", [0, 20, 300])
def test_words_and_others_are_looked_for_together(engine: Any, others: int) -> None:
    more = tuple(f"other-{number}" for number in range(others))
    rules = FitRules(secrets=("hourly-run-secret", *more), secret_words=("hourly-run", *more))
    text = "hourly-run hourly-run-secret hourly-runs xhourly-run-secretx"
    fitted = engine.fit_result(json.dumps({"a": text, "b": 2}).encode(), rules)
    assert json.loads(fitted.body) == {"a": "[REDACTED] [REDACTED] hourly-runs x[REDACTED]x", "b": 2}


def test_short_secrets_are_not_searched_for(chosen: Any) -> None:
    assert redact_text("a1b2 1 12 123", SecretTexts(("", "1", "12", "123"))) == "a1b2 1 12 123"


PIECES = (
    *("://", ":", "@", "/", ",", ";", " ", "\n", "=", "a", "'", '"', "[REDACTED]", "s3cr3t", "abcdefghijklmnop"),
    *("Bearer ", "Basic ", "dXNlcjpwYXNz", "authentication", "password=", "token=", "eyJabcdef.", "sk-", "ghp_"),
    *("-----BEGIN X-----", "-----END X-----"),
)
_pieces = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=_pieces)
def test_redacting_twice_changes_nothing_more(engine: Any, text: str) -> None:
    once = engine.redact_text(text, ["s3cr3t"])
    assert engine.redact_text(once, ["s3cr3t"]) == once
    body = engine.fit_result(json.dumps({"k": text}).encode(), FitRules(secrets=("s3cr3t",))).body
    again = engine.fit_result(body, FitRules(secrets=("s3cr3t",)))
    assert again.body == body


def test_names_and_shapes_stay_where_only_known_secrets_go() -> None:
    value = {"auth": "pg_local", "note": "Bearer abcdefgh", "row": ["s3cr3t-value", {"s3cr3t-value": 1}]}
    assert remove_known(value, SecretTexts(("s3cr3t-value",))) == {
        "auth": "pg_local",
        "note": "Bearer abcdefgh",
        "row": ["[REDACTED]", {"[REDACTED]~0": 1}],
    }


def test_fields_of_a_log_line_are_free_text_and_any_object() -> None:
    fields = {"error": ValueError("login with s3cr3t-value"), "argv": ("--password=abc", 1), "token": "x", "n": 5}
    assert redact_fields(fields, SecretTexts(("s3cr3t-value",))) == {
        "error": "login with [REDACTED]",
        "argv": ["--password=[REDACTED]", 1],
        "token": "[REDACTED]",
        "n": 5,
    }


@pytest.mark.parametrize("many", [40, 5_000])
def test_many_secrets_longest_first(chosen: Any, many: int) -> None:
    secrets = SecretTexts(tuple(f"secret-{number}" for number in range(many)))
    assert redact_text("secret-39 secret-3", secrets) == "[REDACTED] [REDACTED]"

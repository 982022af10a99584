"""The texts a command must not let out: which they are, and in which forms they are known."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shlex
import subprocess
import xml.sax.saxutils
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import httpx
import markupsafe
import pytest

from noetl_worker import known_secrets
from noetl_worker.known_secrets import KnownSecrets
from noetl_worker.redaction import redact_text
from noetl_worker.secret_forms import forms_of

ODD = "pa'ss/wo\"rd & <x>~\\é+1"


def lower(form: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), form)


def row_of(text: str) -> str:
    file = io.StringIO()
    csv.writer(file).writerow([text])
    return file.getvalue().strip()


def traced(text: str) -> str:
    done = subprocess.run(["sh", "-xc", ': "$0"', text], capture_output=True, text=True, check=True)
    return done.stderr


WAYS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quote": quote,
    "quote, all": lambda text: quote(text, safe=""),
    "quote_plus": quote_plus,
    "quote_plus, slash": lambda text: quote_plus(text, safe="/"),
    "user of an address": lambda text: quote(text, safe="!$&'()*+,;="),
    "encodeURIComponent": lambda text: quote(text, safe="!*'()"),
    "a browser's form": lambda text: quote_plus(text, safe="*").replace("~", "%7E"),
    "urlencode": lambda text: urlencode({"a": text}),
    "httpx, query": lambda text: str(httpx.URL("http://h/", params={"a": text})),
    "httpx, path": lambda text: str(httpx.URL(f"http://h/{quote(text)}")),
    "html.escape": html.escape,
    "html.escape, text": lambda text: html.escape(text, quote=False),
    "markupsafe": lambda text: str(markupsafe.escape(text)),
    "XML": lambda text: xml.sax.saxutils.escape(text, {'"': "&quot;", "'": "&apos;"}),
    "SQL": lambda text: "select '" + text.replace("'", "''") + "'",
    "CSV": row_of,
    "repr": repr,
    "repr of a list": lambda text: repr([text, "it's"]),
    "JSON": json.dumps,
    "JSON, raw": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON, Go": lambda text: json.dumps(text).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
    "JSON, PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "shlex.quote": shlex.quote,
    "sh -x": traced,
}


@pytest.mark.parametrize("way", WAYS)
def test_secret_is_known_however_a_library_wrote_it(way: str) -> None:
    known = KnownSecrets()
    known.add(ODD)
    written = WAYS[way](ODD)
    for form in (written, lower(written)):
        shown = redact_text(f"got {form} here", known.forms())
        assert "[REDACTED]" in shown
        assert "wo" not in shown, shown


@pytest.mark.parametrize("secret", ["hunter2Hunter2", "pa'ss", "a/b", "s3cr3t & s0n", ODD])
def test_forms_come_only_from_what_is_in_the_secret(secret: str) -> None:
    forms = set(forms_of(secret))
    assert len(forms) <= (9 if secret.isalnum() else 80)
    assert all(len(form) <= 6 * len(secret) + 8 for form in forms)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (48151.25, ["48151.25"]),
        (-48151.5, ["-48151.5"]),
        (48151623.0, ["48151623.0", "48151623"]),
        (4815, ["4815"]),
    ],
)
def test_number_is_a_secret_too(value: float, texts: list[str]) -> None:
    known = KnownSecrets()
    known.add_credential({"pin": value})
    assert set(texts) <= set(known.forms())


@pytest.mark.parametrize("value", [0.25, 1.5, 100.0, float("nan"), float("inf"), True, None, 12])
def test_number_that_is_in_every_result_is_none(value: object) -> None:
    known = KnownSecrets()
    known.add_credential({"pin": value})
    assert known.forms() == ()


def test_plural_in_a_config_is_secret_and_a_count_is_none() -> None:
    known = KnownSecrets()
    known.add_inline(
        {"api_keys": ["first-key", "second-key"], "tokens": 150_000, "max_tokens": 4096, "password": 12345}
    )
    assert {"first-key", "second-key", "12345"} <= set(known.forms())
    assert not {"150000", "4096"} & set(known.forms())


def test_each_of_several_secrets_of_a_config_is_known_and_a_reference_to_one_is_none() -> None:
    known = KnownSecrets()
    known.add_inline({"api_keys": {"github": "first-key"}, "db_passwords": {"admin": "second-one"}})
    known.add_inline({"certs": [{"name": "of-the-site", "pem": "third-one"}]})
    known.add_inline({"secret": {"name": "k8s-secret", "key": "password"}, "usage": {"tokens": {"input": 150_000}}})
    assert {"first-key", "second-one", "third-one"} <= set(known.forms())
    known.add_inline({"tokens": ["these", "words"], "user_tokens": {"a": 150_000, "b": "fourth-one"}})
    assert not {"of-the-site", "k8s-secret", "password", "150000", "words"} & set(known.forms())
    assert "fourth-one" in known.forms()


def test_number_of_secrets_has_no_limit() -> None:
    known = KnownSecrets()
    known.add_inline({"rows": [{"password": f"planted-{number}"} for number in range(5_000)]})
    assert {"planted-0", "planted-4999"} <= set(known.forms())
    assert redact_text("planted-17 and planted-4999.", known.forms()) == "[REDACTED] and [REDACTED]."


def test_forms_of_the_workers_own_secrets_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(text: str) -> list[str]:
        made.append(text)
        return [text]

    known_secrets._forms_of_worker.cache_clear()
    monkeypatch.setattr(known_secrets, "forms_of", counted)
    for _ in range(3):
        known = KnownSecrets(("Bearer own-token", "own-password", "abc"))
        known.add("of-this-command")
        assert set(known.forms()) == {"Bearer own-token", "own-token", "own-password", "of-this-command"}
    known_secrets._forms_of_worker.cache_clear()
    assert sorted(made) == sorted(["Bearer own-token", "own-token", "own-password", *["of-this-command"] * 3])


def test_forms_of_a_secret_are_made_once_for_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(known_secrets, "forms_of", lambda text: made.append(text) or [text])
    known = KnownSecrets()
    for text in ("first-one", "second-one", "first-one"):
        known.add(text)
        known.forms()
    assert made == ["first-one", "second-one"]

"""The texts a command must not let out: which they are, and in which forms they are known."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import random
import re
import shlex
import string
import subprocess
import xml.sax.saxutils
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import httpx
import markupsafe
import pytest

from noetl_worker.text.secrets.forms import encoded_forms, written_forms
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.secrets.redaction import redact_text, redact_value
from noetl_worker.text.secrets.strength import Strength, rate_strength

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
        shown = redact_text(f"got {form} here", known.texts())
        assert "[REDACTED]" in shown
        assert "wo" not in shown, shown


def seeded(count: int = 60) -> list[str]:
    """Secrets as programs make them: of letters and digits, of hexadecimal digits, of base64, of everything."""
    draw = random.Random(15)
    letters = string.ascii_letters + string.digits
    alphabets = (letters, "0123456789abcdef", letters + "+/", letters + string.punctuation, letters + "-_")
    return ["".join(draw.choices(draw.choice(alphabets), k=draw.randrange(16, 48))) for _ in range(count)]


@pytest.mark.parametrize("way", [*WAYS, "base64", "base64 inside", "hex"])
def test_no_secret_of_a_seeded_set_is_left_in_data_or_text(way: str) -> None:
    def written(text: str) -> str:
        raw = text.encode()
        encoded = {
            "base64": base64.b64encode(raw),
            "base64 inside": base64.urlsafe_b64encode(b"me:" + raw + b"\n"),
            "hex": raw.hex().encode(),
        }
        return encoded[way].decode() if way in encoded else WAYS[way](text)

    for secret in seeded():
        known = KnownSecrets()
        assert known.add(secret)
        form = written(secret)
        core = form[6:-6] if "base64" in way else form.strip("'\"").partition("http://h/?a=")[2] or form.strip("'\"")
        for value in (form, f"got {form} here", f"x{form}y", {f"in {form}": [form]}, {"a": {"b": f"{form}{form}"}}):
            assert core not in json.dumps(redact_value(value, known.texts()), ensure_ascii=False)
        assert core not in redact_text(f"got {form}", known.texts())


@pytest.mark.parametrize(
    ("secret", "strength"),
    [
        *(
            (word, Strength.COMMON)
            for word in ("demo", "noetl", "Password", "administrator", "======", "0000000000000")
        ),
        *(
            (word, Strength.SHORT)
            for word in ("hunter2", "4815", "481516234200", "Admin@123", "Password1234", "secret!")
        ),
        *((word, Strength.WORDY) for word in ("hunter22", "customer_records", "eu-west-1-prod", "Summer Rain 2024!")),
        *((word, Strength.STRONG) for word in ("s3cr3t-value", "kJ#m-P$v+L@x!", "0123456789abcdef", "QwErTyUiOpAs")),
    ],
)
def test_where_a_secret_is_cut_depends_on_what_is_in_it(secret: str, strength: Strength) -> None:
    assert rate_strength(secret) is strength
    known = KnownSecrets()
    assert known.add(secret) is (strength in (Strength.WORDY, Strength.STRONG))
    texts = known.texts()
    kept = {Strength.SHORT: texts.message_words, Strength.WORDY: texts.words, Strength.STRONG: texts.anywhere}
    assert secret in kept.get(strength, (secret,))
    assert bool(texts.data_texts) is (strength in (Strength.WORDY, Strength.STRONG))


@pytest.mark.parametrize(
    "text", ["a" * 200_000 + "1", "aB" * 100_000 + "-", "1" * 200_000 + "a", "a-" * 100_000 + "12345"]
)
def test_judging_a_long_text_takes_time_in_proportion_to_it(text: str) -> None:
    """A text that is worse than linear would not come to an end here."""
    assert rate_strength(text) in (Strength.COMMON, Strength.WORDY, Strength.STRONG)


SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"


@pytest.mark.parametrize(
    ("query", "secrets"),
    [
        (f"X-Amz-Expires=3600&X-Amz-Signature={SIGNATURE}&region=eu-central-1", {SIGNATURE}),
        ("sv=2024-11-04&sr=container&sig=pQ9%2Fx3Zk7Jw%3D&rsct=binary", {"pQ9%2Fx3Zk7Jw%3D", "pQ9/x3Zk7Jw="}),
        ("page_size=customer-records&access_token=tok-en-77-xyz", {"tok-en-77-xyz"}),
        ("code=8hT2vKx0Pq4RzLm9", {"8hT2vKx0Pq4RzLm9"}),
        ("code=quarterly-report&key=customer_records&sign=positive-values", set()),
        ("q=customer-records-2024&sort=descending&page=2&fields=name,street,city", set()),
    ],
)
def test_query_of_an_address_is_secret_only_where_a_parameter_signs_it(query: str, secrets: set[str]) -> None:
    for told in ("inline", "credential"):
        known = KnownSecrets()
        config = {"url": f"https://store.example/reports/year?{query}"}
        known.add_inline(config) if told == "inline" else known.add_credential(config)
        found = set(known.texts().all)
        assert secrets <= found
        assert bool(found) is bool(secrets)
        assert not any(text in ("customer-records", "3600", "eu-central-1") for text in found)


@pytest.mark.parametrize("secret", ["hunter2Hunter2", "pa'ss", "a/b", "s3cr3t & s0n", ODD])
def test_forms_come_only_from_what_is_in_the_secret(secret: str) -> None:
    forms = {*written_forms(secret), *encoded_forms(secret)}
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
    assert set(texts) <= set(known.texts().all)


@pytest.mark.parametrize("value", [0.25, 1.5, 100.0, float("nan"), float("inf"), True, None, 12])
def test_number_that_is_in_every_result_is_none(value: object) -> None:
    known = KnownSecrets()
    known.add_credential({"pin": value})
    assert known.texts().all == ()


def test_plural_in_a_config_is_secret_and_a_count_is_none() -> None:
    known = KnownSecrets()
    known.add_inline(
        {"api_keys": ["first-key", "second-key"], "tokens": 150_000, "max_tokens": 4096, "password": 12345}
    )
    assert {"first-key", "second-key", "12345"} <= set(known.texts().all)
    assert not {"150000", "4096"} & set(known.texts().all)


def test_each_of_several_secrets_of_a_config_is_known_and_a_reference_to_one_is_none() -> None:
    known = KnownSecrets()
    known.add_inline({"api_keys": {"github": "first-key"}, "db_passwords": {"admin": "second-one"}})
    known.add_inline({"certs": [{"name": "of-the-site", "pem": "third-one"}]})
    known.add_inline({"secret": {"name": "k8s-secret", "key": "password"}, "usage": {"tokens": {"input": 150_000}}})
    assert {"first-key", "second-one", "third-one"} <= set(known.texts().all)
    known.add_inline({"tokens": ["these", "words"], "user_tokens": {"a": 150_000, "b": "fourth-one"}})
    assert not {"of-the-site", "k8s-secret", "password", "150000", "words"} & set(known.texts().all)
    assert "fourth-one" in known.texts().all


def test_number_of_secrets_has_no_limit() -> None:
    known = KnownSecrets()
    known.add_inline({"rows": [{"password": f"planted-{number}"} for number in range(5_000)]})
    assert {"planted-0", "planted-4999"} <= set(known.texts().all)
    assert redact_text("planted-17 and planted-4999.", known.texts()) == "[REDACTED] and [REDACTED]."


@pytest.mark.parametrize(
    "config",
    [
        {"rows": list(range(100)), "password": "planted-one"},
        {"text": "x" * 100, "password": "planted-one"},
        {"passwords": {"rows": ["a" * 9, ["planted-one"] * 100]}},
    ],
)
def test_walk_that_ends_at_its_limit_says_so_and_a_whole_one_finds_all(config: dict[str, Any]) -> None:
    known = KnownSecrets()
    assert not known.add_inline(config, most=50)
    assert known.add_inline(config, most=10_000)
    assert "planted-one" in {*known.texts().anywhere, *known.texts().words}

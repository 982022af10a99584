"""Secrets that are words: no text that is none of them changes, and what a tool gave goes on as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.models import Dialect, FitRules, JsonValue
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.secrets.redaction import redact_text

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "compat" / "samples"
DEMO = {"db_user": "demo", "db_password": "demo", "db_name": "demo_noetl", "db_host": "localhost", "db_port": 5432}
"""The credential `pg_demo` of the recordings."""
WORDS = """
    demo noetl noetl-worker post admin test pass token secret data null true http value Playbook python postgres
    postgresql database warehouse password password1 1234 2024 5432 12345678 3600 localhost hunter2 s3cr3t qwerty
    Welcome1 changeme executions status success result context command completed Admin@123 transformation ====
    00000000000
"""
"""Passwords as development set-ups have them: most are somewhere in the corpus."""
PHRASES = ("ommand-complete", "executionid", "playbook.complet", "esult_ref_id1", "untime-event-log", "eu-north-9-prod")
"""Long enough to be cut out, and pieces of words of the corpus at best."""


def corpus() -> Iterator[JsonValue]:
    """What planes and workers were recorded to say, and the project's own pages."""
    for sample in sorted(SAMPLES.rglob("*.jsonl")):
        yield from map(json.loads, sample.read_text(encoding="utf-8").splitlines()[:200])
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        yield page.read_text(encoding="utf-8").splitlines()


def known(*texts: str) -> KnownSecrets:
    secrets = KnownSecrets()
    for text in texts:
        secrets.add_credential({"password": text})
    return secrets


def sent(engine: Any, value: JsonValue, secrets: KnownSecrets) -> JsonValue:
    rules = FitRules.for_secrets(secrets.texts(), max_bytes=2**40)
    return json.loads(engine.fit_result(json.dumps(value).encode(), rules).body)


def test_no_innocent_text_of_the_corpus_changes(engine: Any) -> None:
    secrets = known(*WORDS.split(), *PHRASES)
    seen = ""
    for value in corpus():
        assert sent(engine, value, secrets) == sent(engine, value, KnownSecrets())
        seen += json.dumps(value)
    assert sum(word in seen for word in WORDS.split()) > 30, "a corpus that has none of them shows nothing"
    assert sum(phrase in seen for phrase in PHRASES) >= 2


def test_recorded_rows_that_hold_the_password_in_words_go_on_as_they_are(engine: Any, dialect: Dialect) -> None:
    recorded = json.loads((SAMPLES / "values" / f"secret-in-words-{dialect.value}.jsonl").read_text(encoding="utf-8"))
    value = next(iter(recorded["steps"].values()))["value"]
    assert "democratic" in json.dumps(value)
    secrets = KnownSecrets()
    assert secrets.add_credential(DEMO) == ["db_password"]
    assert sent(engine, value, secrets) == value


def test_reference_outlives_a_password_that_is_the_name_of_its_scheme(engine: Any) -> None:
    value = {"start": {"_ref": "noetl://12/start/noetl"}, "uri": "noetl://12/start", "demographics": "noetl"}
    assert sent(engine, value, known("noetl", "demo")) == value


def test_phrase_is_cut_as_a_whole_value_or_word_and_not_inside_of_words_or_keys(engine: Any) -> None:
    value = {
        "customer_records": "customer_records",
        "customer_records_total": 7,
        "sql": "select * from customer_records_2024 where t = 'customer_records'",
    }
    assert sent(engine, value, known("customer_records")) == {
        "[REDACTED]~0": "[REDACTED]",
        "customer_records_total": 7,
        "sql": "select * from customer_records_2024 where t = '[REDACTED]'",
    }


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        (
            "hunter2",
            "login with 'hunter2' failed: hunter22, xhunter2",
            "login with '[REDACTED]' failed: hunter22, xhunter2",
        ),
        ("4711", "PIN 4711 of 47110", "PIN [REDACTED] of 47110"),
        ("demo", "role demo, database demo", "role demo, database demo"),
        ("noetl", "cannot read noetl://12/start", "cannot read noetl://12/start"),
    ],
)
def test_text_for_people_loses_a_short_secret_as_a_word_and_no_common_word(
    chosen: Any, secret: str, text: str, shown: str
) -> None:
    assert redact_text(text, known(secret).texts()) == shown


STRONG = (
    "kJ8-mP2x-vL9q",
    "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "AKIAIOSFODNN7EXAMPLE/wJalrXUtnFEMI",
    "4815162342108151623421",
)
INNOCENT: JsonValue = {
    "uuid": ["f47ac10b-58cc-4372-a567-0e02b2c3d47a", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "f47ac10b", "58cc-4372"],
    "hashes": [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a09",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "d41d8cd98f00b204e9800998ecf8427e",
    ],
    "references": [
        {"_ref": "noetl://execution/9007199254740993/result/customer_records/kJ8-mP2x-vL9q", "store": "kv"},
        {"kind": "result_ref", "ref": "noetl://tenant/demo/noetl/2024-01-31", "store": "kv", "scope": "execution"},
        "see noetl://execution/12/hunter22/f47ac10b-58cc-4372-a567-0e02b2c3d479 for the rest",
    ],
    "urls": [
        "https://demo.example/hunter22x/2024-01-31/page?sort=descending&fields=name,street&page=2#customer_records_2",
        "postgresql://localhost:5432/demo_noetl",
        "s3://bucket/year=2024/month=01/part-0001.parquet?versionId=3sL4kqtJlcpXroDTDmJ",
    ],
    "words": "Democratic customs at 10.20.30.40 on 2024-01-31, call 555-0100-4711: hunter221 of customer_records_2024",
    "keys": {
        "demographics": 1,
        "hunter22x": 2,
        "hunter22 total": 3,
        "all customer_records": 4,
        "customer_records.rows": 5,
        "2024-01-31": 6,
        "noetl://12/kJ8-mP2x-vL9q": 7,
        "f47ac10b-58cc": 8,
    },
    "numbers": [48151623421, 4815162342.5, 20240131, "4815162342"],
}
"""Near to every secret, and none of them."""
LOOKED_FOR = (*STRONG, "demo", "noetl", "hunter22", "customer_records", "2024-01-31", "10.20.30.40", "555-0100-4711")


def test_words_uuids_hashes_references_urls_and_keys_near_to_secrets_stay(engine: Any) -> None:
    assert sent(engine, INNOCENT, known(*LOOKED_FOR)) == INNOCENT


@pytest.mark.parametrize("secret", STRONG)
def test_strong_secret_goes_from_longer_words_and_takes_its_key_with_it(engine: Any, secret: str) -> None:
    """What an author wrote as `prefix{{ secret }}suffix`: no innocent text has it by chance."""
    value = {secret: f"pre{secret}post", f"pre{secret}post": [secret, {"a": f"https://host/{secret}/x"}], "plain": 1}
    assert sent(engine, value, known(*LOOKED_FOR)) == {
        "[REDACTED]~0": "pre[REDACTED]post",
        "[REDACTED]~1": ["[REDACTED]", {"a": "https://host/[REDACTED]/x"}],
        "plain": 1,
    }

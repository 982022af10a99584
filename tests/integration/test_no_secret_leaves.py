"""Secrets planted in every place a tool can put them, looked for in everything that leaves the process."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.leak_stage import ENDS, PLACES, Plan, Stage
from noetl_worker.models import Dialect

_LETTERS = "abcXYZ0189 +/=&%\"'\\$#@:;,-_.<>éß\n\t{}"
_texts = st.text(_LETTERS, min_size=8, max_size=24).map(lambda text: f"Zq7x{text}")
_words = st.lists(st.sampled_from(["Zqop", "zqueue", "ZQ", "größe", "77", "Zq2024"]), min_size=3, max_size=6)
_phrases = st.tuples(_words, st.sampled_from([" ", "-", "_", "/", "' & ", '"+', "\n", "\\"])).map(
    lambda of: of[1].join(of[0])
)
"""What could be words of a text: not looked for inside of longer ones."""
_GLUED = frozenset({"in_text", "as_key", "progress", "returned_failure"})
"""Places that put the secret directly beside a letter, or into a key."""
_sources = st.sampled_from(
    [f"credential:{name}" for name in ("password", "token", "value", "private_key", "apiKey", "blob")]
    + ["inline", "reference", "template", "header", "bearer", "workload", "input", "keep_secret"]
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    source = draw(_sources)
    is_phrase = draw(st.booleans())
    secret = draw(_phrases if is_phrase else _texts)
    if source == "bearer":
        secret = "".join(letter for letter in secret if letter.isascii() and not letter.isspace()) + "-and-so-on"
    if source in ("inline", "header", "bearer", "input"):  # marks would make a template of it
        secret = secret.replace("{", "(").replace("}", ")")
    usable = set(PLACES) - _GLUED if is_phrase else set(PLACES)
    places = draw(st.lists(st.sampled_from(sorted(usable - set(ENDS))), max_size=6, unique=True))
    if source.startswith("credential:") or source in ("reference", "template", "keep_secret", "bearer"):
        places = [place for place in places if place != "unknown_field"]  # told before the tool asks for its secret
    end = draw(st.sampled_from([None, None, *(end for end in ENDS if end in usable)]))
    return Plan(
        secret,
        source,
        tuple(places) + ((end,) if end else ()),
        draw(st.sampled_from(["none", "none", "exit", "fail", "set_var", "skipped"])),
        draw(st.sampled_from([False, False, False, True])),
    )


def texts_in(blob: bytes) -> Iterator[str]:
    """The bytes as text, and every text and key of the JSON they are, texts that are JSON themselves included."""
    text = blob.decode("utf-8", "replace")
    waiting: list[Any] = [text]
    for line in text.splitlines():
        if line[:1] in "{[":
            try:
                waiting.append(json.loads(line))
            except ValueError:
                continue
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item


def forms_of(secret: str) -> set[str]:
    """The secret as it would be recognised by somebody who looks for it; written apart from the worker's own list."""
    raw = secret.encode()
    forms = {secret, quote(secret, safe=""), quote_plus(secret), raw.hex(), repr(secret)[1:-1]}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms.add(encode(raw).decode().rstrip("=")[:-1])
        forms.add(encode(b"user:" + raw + b"\n").decode()[8:-4])
    return {form for form in forms if len(form) >= 8}


def found_in(stage: Stage, log: str, secret: str) -> list[str]:
    forms = forms_of(secret)
    return [
        f"{where}: {form!r} in {text[max(0, text.index(form) - 60) : text.index(form) + 80]!r}"
        for where, blob in (*stage.left(), ("log", log.encode()))
        for text in texts_in(blob)
        for form in forms
        if form in text
    ]


@pytest.mark.sweep
def test_no_planted_secret_leaves_the_process(dialect: Dialect, tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    stage = Stage(dialect, tmp_path)

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(plan=plans(), log_form=st.sampled_from(["json", "console"]))
    def check(plan: Plan, log_form: str) -> None:
        message, log = loop.run_until_complete(stage.play(plan, log_form))
        assert found_in(stage, log, plan.secret) == []
        assert stage.tool.received.pop() == plan.secret  # it was there to leak
        assert message.answers[0][:4] == ("term" if plan.refused else "ack")

    try:
        check()
    finally:
        loop.run_until_complete(stage.close())
        loop.close()


@pytest.mark.parametrize("place", sorted(PLACES))
async def test_each_place_alone(place: str, tmp_path: Path) -> None:
    """So that a place which stops being one is noticed: the mark has to be where the secret was."""

    # The Python plane is not sent the output streams of a tool that succeeded.
    dialect = Dialect.RUST if place.startswith("std") else Dialect.PYTHON
    stage = Stage(dialect, tmp_path)
    try:
        secret = 'Zq8\\k"é/+ x=9'
        source = "inline" if place == "unknown_field" else "credential:password"
        _, log = await stage.play(Plan(secret, source, (place,)), "json")
        everything = b"".join(blob for _, blob in stage.left()).decode("utf-8", "replace") + log
        assert stage.tool.received == [secret]
        assert "[REDACTED]" in everything
        assert not any(form in everything for form in forms_of(secret))
    finally:
        await stage.close()

"""A known secret that a program printed encoded and broken into lines is taken out all the same."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from noetl_worker.engine.chosen import fit_result
from noetl_worker.engine.pure.redact import MARK
from noetl_worker.models import FitRules, SecretTexts
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.secrets.redaction import redact_text, redact_value, remove_known

SECRET = 'kJ8-mP2x/vL9q\\T5"w_Zr4+Hs7'


def wrapped(width: int, end: str = "\n") -> Callable[[bytes], str]:
    def write(raw: bytes) -> str:
        text = base64.b64encode(raw).decode()
        return "".join(text[at : at + width] + end for at in range(0, len(text), width))

    return write


def plain_hex(raw: bytes) -> str:
    return "".join(f"{raw[at : at + 30].hex()}\n" for at in range(0, len(raw), 30))


def dumped(line: Callable[[int, bytes], str]) -> Callable[[bytes], str]:
    return lambda raw: "".join(f"{line(at, raw[at : at + 16])}\n" for at in range(0, len(raw), 16))


def shown(raw: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw)


WAYS: dict[str, Callable[[bytes], str]] = {
    "base64": wrapped(76),
    "base64 -w 64, CRLF": wrapped(64, "\r\n"),
    "xxd -p": plain_hex,
    "xxd": dumped(lambda at, raw: f"{at:08x}: {raw.hex(' ', -2):<39}  {shown(raw)}"),
    "xxd -u -g 1": dumped(lambda at, raw: f"{at:08x}: {raw.hex(' ').upper():<47}  {shown(raw)}"),
    "hexdump -C": dumped(lambda at, raw: f"{at:08x}  {raw[:8].hex(' '):<23}  {raw[8:].hex(' '):<24} |{shown(raw)}|"),
    "od -An -tx1": dumped(lambda at, raw: f" {raw.hex(' ')}"),
    "od -tx1": dumped(lambda at, raw: f"{at:07o} {raw.hex(' ')}"),
}


@pytest.fixture
def known() -> SecretTexts:
    secrets = KnownSecrets()
    assert secrets.add(SECRET)
    return secrets.texts()


def left_of(text: str) -> list[str]:
    """Pieces of six bytes of the secret, however they stand in a text."""
    digits = "".join(text.split()).lower()
    pieces = [SECRET[at : at + 6] for at in range(len(SECRET) - 5)]
    found = [one for one in pieces if one in text or one.encode().hex() in digits]
    for shift in range(3):
        for one in pieces:
            core = base64.b64encode(b"\0" * shift + one.encode() + b"\0\0").decode()[2 : shift + 7]
            found += [one] if shift and core in "".join(text.split()) else []
    return found


def outputs(way: str) -> Iterator[str]:
    """The secret at each place of a line, with others around it."""
    for before in range(0, 90, 7):
        yield WAYS[way](b"." * before + SECRET.encode() + b"!" * 40 + b"\n")


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("way", WAYS)
def test_secret_over_several_lines_is_taken_out_of_results_errors_and_variables(way: str, known: SecretTexts) -> None:
    rules, prefix = FitRules.for_secrets(known, max_bytes=1 << 20), "Key: " if way.startswith("base64") else "Key:\n"
    for output in outputs(way):
        for text in (output, f"{prefix}{output}end\nbye", f"first line\n{output}\n\nlast line"):
            fitted = fit_result(json.dumps({"rows": [1], "stdout": text}).encode(), rules).body.decode()
            results = [json.loads(fitted)["stdout"], redact_text(text, known)]
            results += [redact_value({"a": [text]}, known)["a"][0], remove_known(text, known)]
            for redacted in results:
                assert MARK in redacted
                assert left_of(redacted) == [], (output, redacted)


@pytest.mark.parametrize("way", ["xxd", "hexdump -C", "od -An -tx1", "od -tx1"])
def test_dump_of_one_line_is_taken_out(way: str) -> None:
    secrets = KnownSecrets()
    assert secrets.add("kJ8-mP2x-vL9q")
    text = WAYS[way](b"kJ8-mP2x-vL9q")
    fitted = fit_result(json.dumps({"out": text}).encode(), FitRules.for_secrets(secrets.texts(), max_bytes=1 << 20))
    assert json.loads(fitted.body)["out"] == f"{MARK}\n"


def test_lines_around_the_secret_stay(known: SecretTexts) -> None:
    text = wrapped(76)(b"a" * 560 + SECRET.encode() + b"b" * 570)
    redacted = redact_text(text, known)
    assert len(redacted.splitlines()) == len(text.splitlines()) - 1
    assert set(redacted.splitlines()) - set(text.splitlines()) == {MARK}


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\nc",
        "kJ8-mP2x\nother\nvL9q",
        "00000000: 6b4a 382d    kJ8-\n",
        "",
        "\n",
        " 0a 0b\n",
        '\\n"x"\n',
    ],
)
def test_text_without_the_secret_stays(text: str, known: SecretTexts) -> None:
    assert redact_text(text, known) == text
    document = json.dumps({"a": text}).encode()
    assert json.loads(fit_result(document, FitRules.for_secrets(known, max_bytes=1 << 20)).body) == {"a": text}


@pytest.mark.parametrize("command", ["base64", "xxd", "xxd -p", "od -An -tx1", "od -t x1z", "hexdump -C"])
def test_secret_that_a_program_printed_is_taken_out(command: str, known: SecretTexts) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip("not on this machine")
    done = subprocess.run(command.split(), input=b"." * 60 + SECRET.encode() + b"\n", capture_output=True, check=True)
    assert left_of(redact_text(done.stdout.decode(), known)) == []

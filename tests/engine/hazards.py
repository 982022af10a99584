"""Inputs that tell two engines apart: made from a `random.Random`, for Hypothesis, the long run and the fuzzers.

Each `Call` is one call of the engine protocol with its arguments; `outcome` makes its result comparable, kinds of
numbers and order of keys included.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz import plain_search
from noetl_worker.errors import EngineError
from noetl_worker.models import FitRules
from noetl_worker.text.secrets.known import KnownSecrets

WORDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("hazards.json").read_text(encoding="utf-8"))
NUMBERS, TEXTS, KEYS = WORDS["numbers"], WORDS["texts"], WORDS["keys"]
OPERATORS, PATTERN_PIECES, SUBJECTS = WORDS["operators"], WORDS["pattern_pieces"], WORDS["subjects"]


@dataclass(frozen=True)
class Call:
    """One call of an engine: `run(engine)`."""

    name: str
    arguments: tuple[Any, ...]

    def run(self, engine: Any) -> Any:
        if self.name == "match":
            cases, variables, data, rendered = self.arguments
            return _match(engine, cases, variables, data, rendered)
        if self.name == "known_secrets":
            return engine.redact_text(*self.arguments)
        return getattr(engine, self.name)(*self.arguments)


def _match(engine: Any, cases: bytes, variables: bytes, data: bytes | None, rendered: list[bytes]) -> list[Any]:
    """Everything one can see of a table and a match, with a list of values for templated sides."""
    table = engine.compile_cases(cases)
    seen: list[Any] = [len(table), table.skipped, table.variables, table.reads_result]
    reached = table.match(variables, data)
    for value in rendered:
        if reached is None or isinstance(reached, tuple):
            break
        seen.append((reached.case, reached.condition, reached.side, reached.template))
        reached = reached.resume(value)
    seen.append(reached if reached is None or isinstance(reached, tuple) else (reached.case, reached.condition))
    return seen


def outcome(call: Call, engine: Any) -> tuple[str, ...]:
    """Return ("value", text) or ("error", class, code, message)."""
    try:
        return ("value", repr(call.run(engine)))
    except EngineError as error:
        message = "" if error.code in ("invalid_regex", "regex_unsupported") else str(error)
        return ("error", type(error).__name__, error.code, message)


def differ(call: Call, pure: Any, rust: Any) -> bool:
    """Whether the engines disagree, or know other secrets than the definition does.

    What the pure one says it does not support is no disagreement.
    """
    one = outcome(call, pure)
    if call.name == "known_secrets" and one != ("value", repr(plain_search.replaced(*call.arguments))):
        return True
    return "regex_unsupported" not in one and one != outcome(call, rust)


def call(draw: random.Random) -> Call:
    """Draw one call."""
    return draw.choice(_MAKERS)(draw)


def json_text(draw: random.Random, depth: int = 0) -> str:
    """Draw a JSON text, or something close to one."""
    kind = draw.random()
    if kind < 0.2:
        return draw.choice(NUMBERS)
    if kind < 0.5 or depth > 4:
        return quoted(draw, draw.choice(TEXTS))
    if kind < 0.6:
        return draw.choice(["true", "false", "null"])
    space = draw.choice(["", "", "", " ", "\n\t"])
    count = draw.randrange(0, 4)
    if kind < 0.75:
        return "[" + space + ("," + space).join(json_text(draw, depth + 1) for _ in range(count)) + space + "]"
    members = (f"{quoted(draw, draw.choice(KEYS))}{space}:{json_text(draw, depth + 1)}" for _ in range(count))
    return "{" + space + ",".join(members) + "}"


def quoted(draw: random.Random, text: str) -> str:
    """Quote a text, sometimes with escapes nobody needs, sometimes wrongly."""
    style = draw.random()
    if style < 0.75:
        short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
        return '"' + "".join(short.get(letter, letter) for letter in text) + '"'
    if style < 0.95:
        return '"' + "".join(_escaped(draw, letter) for letter in text) + '"'
    return (
        '"'
        + draw.choice(["\\ud800", "\\udc00", "\\ud83d\\ud83d", "\\ud83d\\ude00", "\\x", "\x01", "\\u12", "\\/"])
        + '"'
    )


def _escaped(draw: random.Random, letter: str) -> str:
    if draw.random() < 0.5 and letter not in '"\\\n\t':
        return letter
    data = letter.encode("utf-16-be")
    return "".join(f"\\u{int.from_bytes(data[at : at + 2], 'big'):04x}" for at in range(0, len(data), 2))


def mutated(draw: random.Random, text: str) -> bytes:
    """Encode; one text in ten is damaged."""
    data = text.encode("utf-8")
    damage = draw.random()
    if damage < 0.9 or not data:
        return data
    at = draw.randrange(len(data))
    if damage < 0.94:
        return data[:at]
    if damage < 0.97:
        return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    return data[:at] + draw.choice([b",", b"}", b"[", b"\xff", b" ", b"\xef\xbb\xbf"]) + data[at:]


def json_bytes(draw: random.Random) -> bytes:
    return mutated(draw, json_text(draw))


def _object(draw: random.Random, members: dict[str, str]) -> str:
    """An object of some of these members, sometimes with one of them twice."""
    chosen = [(key, value) for key, value in members.items() if draw.random() < 0.93]
    if chosen and draw.random() < 0.1:
        chosen.append((draw.choice(chosen)[0], json_text(draw, 3)))
    return (
        "{"
        + ",".join(f"{quoted(draw, key) if draw.random() < 0.1 else _plain(key)}:{value}" for key, value in chosen)
        + "}"
    )


def _plain(key: str) -> str:
    return f'"{key}"'


def _id(draw: random.Random) -> str:
    number = draw.choice(NUMBERS) if draw.random() < 0.3 else str(draw.randrange(2**63))
    return f'"{number}"' if draw.random() < 0.3 else number


def notification(draw: random.Random) -> Call:
    members = {
        "execution_id": _id(draw),
        "event_id": _id(draw),
        "command_id": _id(draw) if draw.random() < 0.7 else json_text(draw, 3),
        "step": quoted(draw, draw.choice(TEXTS)) if draw.random() < 0.9 else json_text(draw, 3),
        "server_url": '"http://s"' if draw.random() < 0.8 else json_text(draw, 3),
        "execution_pool": draw.choice(['"shared"', "null", '""']) if draw.random() < 0.9 else json_text(draw, 3),
        "trace": json_text(draw, 2) if draw.random() < 0.3 else '{"traceparent":"00-1"}',
        "more": json_text(draw, 2),
    }
    return Call("decode_notification", (mutated(draw, _object(draw, members)),))


def condition_text(draw: random.Random) -> str:
    left = draw.choice(TEXTS[:32] + KEYS[:8])
    op = draw.choice(OPERATORS[:12] if draw.random() < 0.95 else OPERATORS)
    right = json_text(draw, 2)
    if op == "matches" and draw.random() < 0.8:
        right = _json_quoted(pattern(draw))
    if draw.random() < 0.1:
        return "[" + ",".join([_json_quoted(left), _json_quoted(op), right][: draw.randrange(5)]) + "]"
    return _object(draw, {"left": _json_quoted(left), "op": _json_quoted(op), "right": right})


def _json_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def action_text(draw: random.Random) -> str:
    return draw.choice(
        [
            '"continue"',
            '{"continue":null}',
            f'{{"exit":{{"status":"done","data":{json_text(draw, 2)}}}}}',
            f'{{"set_var":{{"name":"n","value":{json_text(draw, 2)}}}}}',
            '{"goto":{"step":"s2"}}',
            f'{{"retry":{{"delay_ms":{draw.choice(NUMBERS)}}}}}',
            f'{{"fail":{{"message":{json_text(draw, 3)}}}}}',
            json_text(draw, 2),
        ]
    )


def case_text(draw: random.Random) -> str:
    when = "[" + ",".join(condition_text(draw) for _ in range(draw.randrange(4))) + "]"
    if draw.random() < 0.05:
        return f"[{when},{action_text(draw)}]"
    return _object(draw, {"when": when, "then": action_text(draw)})


def match(draw: random.Random) -> Call:
    cases = "[" + ",".join(case_text(draw) for _ in range(draw.randrange(5))) + "]"
    variables = _object(draw, {draw.choice(TEXTS[:12] + KEYS[:8]): json_text(draw, 2) for _ in range(4)})
    data = None if draw.random() < 0.1 else json_bytes(draw)
    rendered = [json_bytes(draw) for _ in range(3)]
    return Call("match", (mutated(draw, cases), mutated(draw, variables), data, rendered))


def evaluate(draw: random.Random) -> Call:
    variables = _object(draw, {draw.choice(TEXTS[:12]): json_text(draw, 2) for _ in range(3)})
    data = None if draw.random() < 0.2 else json_bytes(draw)
    return Call("evaluate", (mutated(draw, condition_text(draw)), variables.encode(), data))


def decide(draw: random.Random) -> Call:
    left = json_bytes(draw)
    right = None if draw.random() < 0.1 else left if draw.random() < 0.3 else json_bytes(draw)
    return Call("decide", (left, draw.choice(OPERATORS), right))


def pattern(draw: random.Random) -> str:
    return "".join(draw.choice(PATTERN_PIECES) for _ in range(draw.randrange(1, 6)))


def matches(draw: random.Random) -> Call:
    return Call(
        "decide", (_json_quoted(draw.choice(SUBJECTS)).encode(), "matches", _json_quoted(pattern(draw)).encode())
    )


# Patterns that are accepted, unlike most of `pattern`: what they find in texts of the same letters is compared.
_LETTERS = ["a", "b", "c", "k", "s", "S", "K", "_", "1", " ", "\n", ".", "é", "É", "ß", "ſ", "\u212a", "中", "²", "٣"]
_SETS = [".", "\\d", "\\w", "\\s", "\\W", "\\D", "\\S", "\\pL", "\\PL", "\\p{Lu}", "\\P{Lu}", "[^a]", "(?s:.)"]
_LOOKS = ["^", "$", "\\b", "\\B", "\\A", "\\z", "\\<", "\\>", "(?m:^)", "(?m:$)"]
_MEMBERS = ["a", "b", "k", "s", "ß", "\u212a", "_", "\n", "a-c", "A-Z", "é-ü", "[:upper:]", "[:^lower:]", "\\.", "-"]
_MEMBERS += ["\\d", "\\w", "\\W", "\\P{Lu}", "\\pL"]
_COUNTS = ["*", "+", "?", "*?", "{2}", "{0,2}", "{1,}", "{2,3}", "{0}", "{1,3}"]
_OPENINGS = ["(", "(?:", "(?i:", "(?s:", "(?m:", "(?im:", "(?-i:", "(?U:"]


def accepted_pattern(draw: random.Random, depth: int = 0) -> str:
    """Branches of counted atoms."""
    return "|".join(
        "".join(_atom(draw, depth) + _counts(draw) for _ in range(draw.randrange(4)))
        for _ in range(draw.choice([1, 1, 1, 2, 3]))
    )


def _counts(draw: random.Random) -> str:
    return "".join(draw.choice(_COUNTS) for _ in range(draw.choice([0, 0, 0, 1, 1, 2])))


def _atom(draw: random.Random, depth: int) -> str:
    kind = draw.random()
    if kind < 0.65:
        return draw.choice(draw.choice([_LETTERS, _LETTERS, _SETS, _LOOKS]))
    if kind < 0.8:
        return _bracketed(draw)
    return draw.choice(_OPENINGS) + accepted_pattern(draw, depth + 1) + ")" if depth < 4 else "a"


def _bracketed(draw: random.Random, depth: int = 0) -> str:
    inside = ""
    for _ in range(draw.randrange(1, 4)):
        inside += _bracketed(draw, depth + 1) if depth < 2 and draw.random() < 0.2 else draw.choice(_MEMBERS)
        if draw.random() < 0.2:
            inside += draw.choice(["&&", "--", "~~"]) + draw.choice(["a", "a-z", "\\w", "[^k]", "\\P{Ll}"])
    return f"[{draw.choice(['', '', '^'])}{inside}]"


def finds(draw: random.Random) -> Call:
    pattern = draw.choice(["", "", "(?i)", "(?m)"]) + accepted_pattern(draw)
    text = "".join(draw.choice(_LETTERS) for _ in range(draw.randrange(14)))
    return Call("decide", (_json_quoted(text).encode(), "matches", _json_quoted(pattern).encode()))


def fit(draw: random.Random) -> Call:
    rules = FitRules(
        max_bytes=draw.choice([0, 10, 100, 102_400]),
        preview_bytes=draw.choice([4_096, 200, 60, 10]),
        preview_depth=draw.choice([8, 2, 1]),
        secrets=tuple(
            draw.sample(
                ["hunter2hunter2", "hunter2", "abc", "123456", "1234567", "", 'é"', "ok", "100000.0", "1e+16"],
                draw.randrange(4),
            )
        ),
        secret_words=some_words(draw),
    )
    if draw.random() < 0.4:
        keys = [beside_words(draw) for _ in range(3)] + ["_ref", "ref", "kind"]
        members = {draw.choice(keys): draw.choice([beside_words(draw), "result_ref"]) for _ in range(4)}
        return Call("fit_result", (json.dumps(members, ensure_ascii=draw.random() < 0.5).encode(), rules))
    return Call("fit_result", (json_bytes(draw), rules))


WORDS = ("customer", "hunter2", "eu-west", "é1é1", "noetl", "1234567")
AROUND_WORDS = (
    *("_", "x", "7", "é", "中", "\u2014", "\u1fff", "\u2000", " ", "-", "/", '"', "\\n", "\\", "%2f", "%2", "\\u00e9"),
    *("\\x0", "\x1b[31m", "[1;2m", "m", "noetl://", "NOETL://", "\t", "=", "[REDACTED]", "é" * 1030, "a" * 1030),
)


def some_words(draw: random.Random) -> tuple[str, ...]:
    """Secrets that are taken out as whole words: none, some, or so many that a text is gone through once for all."""
    many = tuple(f"word-{number}" for number in range(draw.choice([0, 0, 0, 20, 300])))
    return (*draw.sample(WORDS, draw.randrange(len(WORDS))), *many)


def beside_words(draw: random.Random) -> str:
    return "".join(draw.choice(WORDS if draw.random() < 0.4 else AROUND_WORDS) for _ in range(draw.randrange(7)))


def redact(draw: random.Random) -> Call:
    text = "".join(draw.choice([*TEXTS, " ", "=", "password=", "Token=", "\n"]) for _ in range(draw.randrange(6)))
    secrets = ("hunter2", "hunter2hunter2", "west", "noetl")[: draw.randrange(5)]
    return Call("redact_text", (draw.choice([text, beside_words(draw)]), secrets, some_words(draw)))


MARKS = ["{{", "{%", "{#", "\\u00", "_ref", "://", ":\\/", "pass", "pwd", "Cred", "seCret", "token", "Auth", "cookie"]
MARKS += ["bearer", "jwt", "pem", "cert", "key", "session", "dsn", "connection", "{", "_", "c", " "]
MARKS += ['"', "\\", "é", "x" * 99]


def marks(draw: random.Random) -> Call:
    text = "".join(draw.choice(MARKS) for _ in range(draw.randrange(5)))
    text = text.upper() if draw.random() < 0.1 else text
    return Call("find_marks", (text.encode()[draw.randrange(3) :],))


def known_secrets(draw: random.Random) -> Call:
    return Call("known_secrets", plain_search.draw_arguments(draw))


def broken_lines(draw: random.Random) -> Call:
    """Secrets that a program wrote in base64 or hex, in lines, whole and nearly."""
    known = KnownSecrets()
    for _ in range(draw.choice([1, 3, 30])):
        known.add("".join(draw.choices("abcXYZ0189+/-", k=draw.randrange(12, 60))))
    texts, output = known.texts(), ""
    for _ in range(draw.randrange(5)):
        form = "".join(draw.choice(texts.anywhere or ("none",)) for _ in range(draw.randrange(4)))
        width, end = draw.choice([2, 16, 40, 60, 76]), draw.choice(["\n", "\n", "\r\n"])
        before = draw.choice(["", "key: ", "00000000: ", "0000000 ", " ", "  "])
        parts = [form[at : at + width] for at in range(0, len(form), width)]
        output += end.join(f"{before}{' '.join(re.findall('..?', part)) if width == 16 else part}" for part in parts)
        output += draw.choice(["\n", "\n\n", "\nend\n", " x\n", ""])
    if draw.random() < 0.5:
        return Call("redact_text", (output, texts.anywhere, texts.words))
    rules = FitRules(secrets=texts.anywhere, secret_words=texts.words)
    return Call("fit_result", (json.dumps({"a": [output], output[:9]: 1}).encode(), rules))


_MAKERS: list[Callable[[random.Random], Call]] = [notification, match, match, evaluate, decide]
_MAKERS += [matches, finds, fit, redact, known_secrets, broken_lines, marks]

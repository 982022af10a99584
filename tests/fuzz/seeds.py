"""Starting inputs of the Rust fuzz targets, from the vectors and the corpus.

`seeds.py FOLDER` writes FOLDER/decode_notification, FOLDER/match_cases and FOLDER/fit_result. The form of an input is
described at the head of each target (tests/fuzz/rust/fuzz_targets).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]

from engine.vectors import vectors  # noqa: E402
from fuzz import corpus  # noqa: E402

SEPARATOR = b"\xff"
BIG_RULES = bytes((254, 254, 7))
SMALL_RULES = bytes((1, 30, 3))
"""max_bytes and preview_bytes in units of 4, preview_depth; 255 would be a separator."""
SECRET = b"s3cr3tvalue"


def main() -> None:
    folder = Path(sys.argv[1])
    for target, seeds in (("decode_notification", notifications), ("match_cases", matches), ("fit_result", fits)):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for data in seeds():
            (folder / target / hashlib.sha1(data).hexdigest()).write_bytes(data)


def notifications() -> Iterator[bytes]:
    for vector in vectors("notifications"):
        if isinstance(vector.get("data"), str):
            yield vector["data"].encode()
    for _, call in corpus.kept():
        if call.name == "decode_notification":
            yield call.arguments[0]


def matches() -> Iterator[bytes]:
    for vector in vectors("cases", "more_cases"):
        if "case" in vector:
            yield _input([vector["case"]], {"a": 1, "status": "ok"}, {"a": [1, "x"]})
    for vector in vectors("conditions", "more_conditions"):
        case = {"when": [vector["condition"]], "then": {"exit": {"status": "s"}}}
        yield _input([case], vector.get("variables"), vector.get("result"))
    for vector in vectors("regex"):
        condition = {"left": "x", "op": "matches", "right": vector["pattern"]}
        yield _input([{"when": [condition], "then": "continue"}], {"x": vector["text"]}, None)
    for _, call in corpus.kept():
        if call.name == "match":
            yield SEPARATOR.join(one or b"" for one in call.arguments[:3]) + SEPARATOR + b'"x"'
        elif call.name == "decide" and call.arguments[2] is not None:
            left, op, right = call.arguments
            yield b'[{"when":[{"left":"x","op":"%s","right":%s}],"then":"continue"}]' % (op.encode(), right) + (
                SEPARATOR + b'{"x":' + left + b"}" + SEPARATOR + b"null" + SEPARATOR + b"null"
            )


def fits() -> Iterator[bytes]:
    for vector in vectors("fit"):
        for rules in (BIG_RULES, SMALL_RULES):
            yield rules + SECRET + SEPARATOR + vector["data"].encode()
    twice = {"a_31337token": 1, "u": ["://Bearer abcdef1:pw@h", "://a:(Basic dXNlcjpwdw==)@h"]}
    yield BIG_RULES + SECRET + SEPARATOR + json.dumps(twice).encode()
    known = rb'{"a":"hunter2hunter2","n":[31337,"31337"],"s3cr3tvalue":1,"k-s3cr\u0033tvalue":["x s3cr\u0033tvalue",2]}'
    yield BIG_RULES + SECRET + SEPARATOR + known
    for _, call in corpus.kept():
        if call.name == "fit_result":
            yield SMALL_RULES + SECRET + SEPARATOR + call.arguments[0]


def _input(cases: Any, variables: Any, data: Any) -> bytes:
    parts = (cases, {} if variables is None else variables, data)
    return SEPARATOR.join([*(json.dumps(part, ensure_ascii=False).encode() for part in parts), b'"x"'])


if __name__ == "__main__":
    main()

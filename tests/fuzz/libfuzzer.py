"""Coverage-guided form of the long run, where atheris is installed: `libfuzzer.py corpus-folder -max_total_time=60`.

atheris has wheels for some interpreters only, so nothing depends on it; run_short.sh (`make fuzz`) takes it along.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]

with atheris.instrument_imports(include=["noetl_worker"]):
    from engine import hazards
    from noetl_worker.engine.chosen import load_engine
    from noetl_worker.engine.pure import lib as pure
    from noetl_worker.models import FitRules


_, rust = load_engine("rust")


class Bytes(random.Random):
    """A `Random` whose dice are the fuzzer's bytes."""

    def __init__(self, data: bytes) -> None:
        self._left = atheris.FuzzedDataProvider(data)
        super().__init__(0)

    def random(self) -> float:
        return self._left.ConsumeIntInRange(0, 2**16 - 1) / 2**16

    def getrandbits(self, bits: int) -> int:
        return self._left.ConsumeIntInRange(0, 2**bits - 1) if bits else 0


def test_one_input(data: bytes) -> None:
    """Fuzz raw documents with one half of the inputs and drawn calls with the other."""
    if data[:1] < b"\x80":
        calls = [hazards.call(Bytes(data[1:]))]
    else:
        raw = data[1:]
        calls = [
            hazards.Call("decode_notification", (raw,)),
            hazards.Call("find_marks", (raw,)),
            hazards.Call("fit_result", (raw, FitRules(max_bytes=0, preview_bytes=100))),
            hazards.Call("match", (raw, b'{"a":1}', raw, [raw])),
            hazards.Call("decide", (b'"abc"', "matches", raw)),
        ]
    for call in calls:
        assert not hazards.differ(call, pure, rust), call


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()

"""A `rhai` script takes all memory or the stack."""

from __future__ import annotations

import pytest

from .commands import USERS, run_as

TEXT = 'let s = "x"; s.pad(16000000, "x"); '
ATTACKS = {
    "closures in closures": "let g = |x| x; for i in 0..50000 { let h = g; g = |x| h.call(x); }",
    "variables": TEXT + " ".join(f"let v{number} = s + {number};" for number in range(60)),
    "one call": TEXT + 's.replace("x", s);',
}


@pytest.mark.rust
@pytest.mark.parametrize("level", ["off", "basic"])
@pytest.mark.parametrize("user", USERS)
def test_values_without_end_end_their_script_and_the_next_one_runs(user: str, level: str) -> None:
    """Closures 50,000 deep, variables of 16 MB, a value of 256 TB."""
    pytest.importorskip("noetl_worker._core")
    commands = [("rhai", {"code": code}) for code in (*ATTACKS.values(), "1")]
    *attacks, next_one = run_as(user, level, commands)
    for attack in attacks:
        assert attack["error"].startswith("rhai: the process of the script failed (was killed by "), attack
    assert next_one["data"] == 1

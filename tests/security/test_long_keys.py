"""Long texts of playbooks stay in memory."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from noetl_worker.engine.pure.redact import named_by
from noetl_worker.engine.short_keys import ByShortKey
from noetl_worker.errors import ToolError
from noetl_worker.observability.step_log import Warned
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.text.templates.paths import names_in

LONG, WORKLOADS = 300_000, 12
WARNED = Warned()
NUMBERS = itertools.count()


def in_workload(key: str) -> None:
    KnownSecrets().add_inline({key: "text", f"{key}password": "x"})


def in_postgres(key: str) -> None:
    pytest.importorskip("psycopg")
    from noetl_worker.testing import run_tool

    with pytest.raises(ToolError, match="connect"):
        run_tool("postgres", {"sql": "select 1", "auth": {"host": "127.0.0.1", "port": 1, "user": key}})


@pytest.mark.parametrize(
    "use",
    [in_workload, named_by, in_postgres, lambda key: WARNED.is_new(key), lambda key: names_in(key, [key[1:]])],
    ids=["keys of a workload", "keys of a result", "fields of an address", "warnings", "names in code"],
)
def test_long_text_of_a_playbook_does_not_stay(use: Callable[[str], Any]) -> None:
    """Keys of 300 kB fill caches that count entries: 346 MB."""
    use("x" * 10)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(WORKLOADS):
            use(f"{next(NUMBERS):x}" + "a" * LONG)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < LONG


def test_short_key_is_worked_out_once() -> None:
    """(no attack) What the caches are for."""
    asked: list[str] = []

    def length(key: str) -> int:
        asked.append(key)
        return len(key)

    kept = ByShortKey(length, most=2)
    assert [kept["ab"], kept["ab"], kept["abc"], kept["abcd"], kept["ab"]] == [2, 2, 3, 4, 2]
    assert asked == ["ab", "abc", "abcd", "ab"]

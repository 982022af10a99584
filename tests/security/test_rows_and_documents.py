"""Rows of a server and documents of an author that take the loop, or many times their size in memory."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from loops import Threads
from noetl_worker.errors import DocumentError, ToolError
from noetl_worker.models import Dialect, ToolResult
from noetl_worker.settings.tools import ToolSettings
from noetl_worker.testing import MemoryControlPlane, arun_tool, tool_context
from noetl_worker.text import yaml_text
from noetl_worker.tools.http.client import ClientOptions, Clients
from noetl_worker.tools.kinds.container.cluster import Cluster, ClusterAddress
from noetl_worker.tools.kinds.container.container_job import job_end, pod_state
from noetl_worker.tools.kinds.transfer.ends import TransferSource
from noetl_worker.tools.kinds.transfer.sources import READERS
from noetl_worker.tools.process.confinement import UNCONFINED
from noetl_worker.tools.sql.split import first_word
from noetl_worker.tools.sql.sql import Batch
from tools.fake_snowflake import FakeSnowflake
from unit.planes import answer, plane

from .commands import peak_of

# ── transfer ────────────────────────────────────────────────────────────────────────────────────


async def columns_of(data: Any) -> list[str]:
    async def fetched(*_: Any) -> ToolResult:
        return ToolResult.success({"data": data})

    source = TransferSource(type="http", url="http://a.test/")
    async with READERS["http"](source, 1000, tool_context(run_tool=fetched), UNCONFINED) as reader:
        return reader.columns


@pytest.mark.parametrize(
    "rows",
    [[{f"c{number}": 1} for number in range(3000)], [{f"c{number}": 1 for number in range(2000)}, *[{}] * 10_000]],
    ids=["names", "rows"],
)
async def test_rows_times_columns_of_an_answer_are_bounded(rows: list[dict[str, int]]) -> None:
    """100,000 rows of one field each, with another name in each: 10,000 million values."""
    with pytest.raises(ToolError, match=r"is too much: at most 2,000 columns") as caught:
        await columns_of(rows)
    assert caught.value.kind == "resource"
    assert await columns_of(rows[:10]) == list(dict.fromkeys(name for row in rows[:10] for name in row))


# ── snowflake ───────────────────────────────────────────────────────────────────────────────────

SIGN_IN = {"account": "org-acc", "user": "u", "password": "pass-word-1"}


async def test_rows_of_snowflake_are_read_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 rows of Snowflake, made JSON on the loop."""
    pytest.importorskip("duckdb")
    FakeSnowflake().install(monkeypatch)
    threads = Threads()
    result = await arun_tool("snowflake", {"query": "select i from range(20000) t(i)", **SIGN_IN})
    assert len(result.data["rows"]) == 20_000
    assert threads.given == 1


async def test_rows_of_snowflake_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of Snowflake that take all memory: VARIANT of `[],[],...`."""
    pytest.importorskip("duckdb")
    FakeSnowflake().install(monkeypatch)
    dense = "select ('[' || repeat('[],', 200000) || '[]]')::json as v from range(50)"
    with pytest.raises(ToolError, match="the rows take more than 256 MiB: select less") as caught:
        await arun_tool("snowflake", {"query": dense, **SIGN_IN})
    assert caught.value.kind == "resource"


def test_equal_names_of_columns_are_numbered_in_one_pass() -> None:
    """20,000 columns of one name: each was compared with all before it."""
    batch = Batch()
    batch.returned("select", ["a"] * 20_000, [])
    assert (batch.columns[:3], batch.columns[-1]) == (["a", "a_2", "a_3"], "a_20000")


@pytest.mark.parametrize("text", ["-- x\n /* y */ 'z' select 1", "SELECT " + "''" * 100_000, "  "])
def test_first_word_of_a_statement_is_found_without_reading_all_of_it(text: str) -> None:
    """(no attack) A comment and a string before it count as none."""
    assert first_word(text) == ("SELECT" if text.strip() else "")


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────


def cluster(answer: Any) -> Cluster:
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=content))
    return Cluster(
        Clients(transport), ClusterAddress("http://a.test", None, ClientOptions(), settings=ToolSettings()), "noetl"
    )


async def test_large_answer_of_a_cluster_is_parsed_off_the_loop() -> None:
    """600 kB of `[],` from a Kubernetes API."""
    threads = Threads()
    assert await cluster(b'{"items":[' + b"[]," * 200_000 + b"[]]}").pods("j") == []
    assert threads.given == 1


@pytest.mark.parametrize("odd", [7, "x", [], [7], [[]], {"conditions": [7], "containerStatuses": {"name": 1}}])
async def test_answer_of_a_cluster_in_another_form_says_nothing(odd: Any) -> None:
    """A Job or pods in a form that no Kubernetes API has."""
    job = await cluster({"metadata": {"name": "j", "uid": "u"}, "status": odd}).job("j")
    assert job_end(job) is None
    for pods in (odd, [odd], [{"metadata": odd, "status": odd}], [{"status": {"containerStatuses": odd}}]):
        assert pod_state(await cluster({"items": pods}).pods("j")).exit_code is None


# ── stored results ──────────────────────────────────────────────────────────────────────────────


async def test_digest_of_a_large_stored_result_is_made_off_the_loop() -> None:
    """Five JSON texts of a stored result, to compare its digest."""
    store = MemoryControlPlane()
    store.results["noetl://memory/s/r"] = json.dumps(["a" * 200_000]).encode()
    threads = Threads()
    config = {"uri": "noetl://memory/s/r", "sha256": "0" * 64}
    with pytest.raises(ToolError, match=r"not 0{64}: store it again"):
        await arun_tool("artifact", config, control_plane=store)
    assert threads.given == 1


async def test_large_stored_result_is_parsed_off_the_loop() -> None:
    """12 MB of `[],` that one step has stored and the next one refers to: 2 s of the loop."""
    threads = Threads()
    at, _ = plane(lambda method, path, body: answer(200, ["a" * 200_000]), Dialect.PYTHON)
    found, _ = await at.stored_result("noetl://execution/7/result/s/1")
    assert found == ["a" * 200_000]
    assert threads.given == 1


# ── YAML ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" + "[]," * 330_000 + "]", "a document of more than 100,000 values"),
        ("a" * (5 << 20), "a document of more than 4,194,304 characters"),
        ("- a\n" * 250_000, "a document of more than 100,000 values"),
        ("[" * 900 + "a," * 100_000, "nested more than 100 times"),
        ("a: " + "1:" * 500_000 + "1", "a number of more than 1,000 signs"),
        ("a: 0x" + "f" * 1_000_000, "a number of more than 1,000 signs"),
        ("a: " + "1:" * 500_000 + "1.5", "a number of more than 1,000 signs"),
    ],
    ids=["wide flow", "long", "wide block", "deep", "sexagesimal", "hexadecimal", "float"],
)
def test_yaml_that_would_take_long_or_much_memory_is_refused(text: str, problem: str) -> None:
    """A playbook of 1 MB: 330,000 lists take 230 MB and 6 s, `1:1:1...` hours."""

    def refused() -> None:
        with pytest.raises(DocumentError, match=problem):
            yaml_text.loads(text)

    assert peak_of(refused) < 80 << 20


def test_yaml_of_much_text_and_few_values_is_read() -> None:
    """(no attack) Signs of YAML within a text are no values."""
    text = "a: |\n" + "  [1, 2]: {3: 4}\n" * 50_000
    assert len(yaml_text.loads(text)["a"]) == 15 * 50_000

"""`noetl-worker report` and `dev --report`: a run of a plane as one page."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from integration.processes import Ended, typed
from noetl_worker.authoring.dev.plane import DevControlPlane
from noetl_worker.authoring.dev.session import run_playbook
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.models import Dialect
from run_page.told_plane import data_of

SECRET = "k9-Secret-of-the-shop-7731"
PLAYBOOK = f"""
metadata: {{name: shop, path: shop/orders}}
workload: {{password: {SECRET}, numbers: {{all: [1, 2, 3]}}}}
workflow:
  - step: start
    tool:
      kind: python
      input: {{password: "{{{{ workload.password }}}}"}}
      code: "print('with', password)\\nresult = 1"
    next: {{arcs: [{{step: each, when: "{{{{ 1 < 2 }}}}"}}, {{step: other}}]}}
  - step: other
    tool: {{kind: noop}}
  - step: each
    loop: {{in: "{{{{ workload.numbers.all }}}}", iterator: n, spec: {{mode: parallel}}}}
    tool: {{kind: python, input: {{n: "{{{{ iter.n }}}}"}}, code: "result = {{'square': n * n}}"}}
    next: {{arcs: [{{step: last}}]}}
  - step: last
    tool: {{kind: shell, command: "echo done; exit 3"}}
"""


async def reported(folder: Path, dialect: Dialect, *commands: tuple[str, ...]) -> tuple[list[Ended], int]:
    """What `report` says of a run of the playbook for each of these arguments, and the execution."""
    found: list[Any] = []

    async def ask(plane: DevControlPlane, execution_id: int) -> None:
        for arguments in commands:
            given = [argument.format(id=execution_id) for argument in arguments]
            found.append(await asyncio.to_thread(typed, "report", *given, "--server", plane.url))
        found.append(execution_id)

    file = folder / "p.yaml"
    file.write_text(PLAYBOOK, encoding="utf-8")
    await run_playbook(
        file,
        {},
        dialect=dialect,
        keep=False,
        as_json=False,
        worker_factory=local_worker,
        console=Console(file=io.StringIO()),
        on_end=ask,
    )
    return found[:-1], found[-1]


@pytest.mark.parametrize("dialect", Dialect)
async def test_report_of_a_run_has_its_way_its_values_and_no_secret(tmp_path: Path, dialect: Dialect) -> None:
    file = tmp_path / "run.html"
    [ended], execution_id = await reported(tmp_path, dialect, ("{id}", "-o", str(file)))
    assert ended.code == 0, ended.err
    assert "<html" not in ended.out  # a late line of the worker may be there: it runs in this process
    page = file.read_text(encoding="utf-8")
    data = data_of(page)
    names = [step["name"] for step in data["steps"]]
    assert (data["run"]["id"], data["run"]["path"]) == (str(execution_id), "shop/orders")
    assert names == ["start", "other", "each", "last"]
    taken = {(names[way["ends"][0]], names[way["ends"][1]]): way["taken"] for way in data["graph"]["ways"]}
    assert taken == {("start", "each"): True, ("start", "other"): False, ("each", "last"): True}
    items = {one["item"]: one for one in data["commands"] if names[one["step"]] == "each"}
    assert sorted(items) == [0, 1, 2]
    for number, item in items.items():
        assert f'"n": {number + 1}' in item["input"][-1][1]
        assert f'"square": {(number + 1) ** 2}' in item["output"][0][1]
    first, last = data["commands"][0], data["commands"][-1]
    assert ["stdout", "with [REDACTED]\n"] in first["printed"]
    assert (last["state"], last["attempts"]) == ("failed", 1)
    assert ["stdout", "done\n"] in last["printed"]
    assert SECRET not in page
    assert f"{file}: shop/orders" in ended.err


async def test_page_goes_to_standard_output_and_what_cannot_be_shown_or_written_is_said(tmp_path: Path) -> None:
    none = str(tmp_path / "none.html")
    (alone, against, against_none, unknown, nowhere), execution_id = await reported(
        tmp_path,
        Dialect.RUST,
        ("{id}", "-o", "-"),
        ("{id}", "--against", "{id}", "-o", "-"),
        ("{id}", "--against", "77", "-o", none),
        ("77", "-o", none),
        ("{id}", "-o", str(tmp_path / "none/run.html")),
    )
    assert data_of(alone.out)["run"]["id"] == str(execution_id)
    assert data_of(against.out)["against"]["run"]["id"] == str(execution_id)
    assert (against_none.code, "or 77" in against_none.err) == (5, True)
    assert (unknown.code, unknown.err.count("\n")) == (5, 1)
    assert "the control plane knows no execution 77" in unknown.err
    assert not Path(none).exists()
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1)
    assert "none/run.html: No such file or directory" in nowhere.err


def test_dev_writes_its_run_also_one_that_failed(tmp_path: Path) -> None:
    playbook, file = tmp_path / "p.yaml", tmp_path / "a run.html"
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    typed("dev", str(playbook), "--quiet", "--report", str(file))
    data = data_of(file.read_text(encoding="utf-8"))
    assert (data["run"]["path"], len(data["commands"])) == ("shop/orders", 5)


def test_place_of_a_report_is_looked_at_before_the_playbook_runs(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PLAYBOOK, encoding="utf-8")
    for place, said in ((tmp_path / "none/run.html", f"no folder {tmp_path}/none"), (tmp_path, "name a file in it")):
        ended = typed("dev", str(tmp_path / "p.yaml"), "--report", str(place))
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err

"""A plane that answers as it was recorded, and runs made by hand."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from noetl_worker.authoring.run_page.page import render_page
from noetl_worker.authoring.run_page.reading import read_run_from
from noetl_worker.authoring.run_page.run import CommandState, ExecutionRun, RunCommand
from noetl_worker.authoring.run_page.steps import run_steps
from noetl_worker.errors import ServerRefused
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.dialects import RULES

SAMPLES = Path(__file__).parents[1] / "compat/samples"
BEGIN = 1_795_000_000.0
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The system's, by the names it has."""
DETAIL = re.compile(r"/api/executions/\d+$")
_DATA = re.compile(r'<script id="data" type="application/json">(.*?)</script>', re.DOTALL)


def recorded(dialect: Dialect) -> Iterator[dict[str, Any]]:
    for name in (f"{dialect.value}-control-plane-cases.jsonl", f"{dialect.value}-control-plane.jsonl"):
        for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


@cache
def answer_of(dialect: Dialect, case: str) -> Any:
    return next(record["resp"] for record in recorded(dialect) if record.get("case") == case)


def uncut_executions() -> list[dict[str, Any]]:
    """Of the Rust plane, those of which each event was recorded."""
    return [
        record["resp"]
        for record in recorded(Dialect.RUST)
        if record.get("method") == "GET" and DETAIL.fullmatch(record["path"]) and not record.get("cut")
    ]


class ToldPlane:
    """What `read_run_of` asks of a plane."""

    def __init__(
        self,
        dialect: Dialect,
        detail: Mapping[str, Any],
        *,
        pages: Mapping[int, Mapping[str, Any]] | None = None,
        playbook: Mapping[str, Any] | None = None,
        commands: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        self.rules = RULES[dialect]
        self.dialect, self.detail, self.pages, self.playbook = dialect, detail, pages or {}, playbook
        self.commands, self.asked = commands or {}, []

    async def execution_detail(self, execution_id: int) -> Mapping[str, Any]:
        return self.detail

    async def list_events(self, execution_id: int, *, page: int, page_size: int) -> Mapping[str, Any]:
        return self.pages[page]

    async def catalog_entry(self, catalog_id: str) -> Mapping[str, Any]:
        if self.playbook is None:
            raise ServerRefused("404 Catalog entry not found", status=404, body="")
        return {"payload": self.playbook, "version": 3}

    async def fetch_command(self, event_id: int) -> Mapping[str, Any]:
        self.asked.append(event_id)
        if event_id not in self.commands:
            raise ServerRefused("404 command not found", status=404, body="")
        return self.commands[event_id]

    async def read(self, **given: Any) -> ExecutionRun:
        return await read_run_from(self, 1, **given)


def command(step: str, number: int = 0, **given: Any) -> RunCommand:
    at = BEGIN + number * 0.1
    known: dict[str, Any] = {"state": CommandState.DONE, "issued": at, "claimed": at + 0.01, "ended": at + 0.09}
    return RunCommand(step, f"1:{step}:{number}", number + 1, **{**known, "attempts": 1, "worker": "w-1", **given})


def made_run(commands: list[RunCommand], playbook: Mapping[str, Any] | None = None, **given: Any) -> ExecutionRun:
    known = {"status": "COMPLETED", "plane": "Python", "path": "a/b", "started": BEGIN, "ended": BEGIN + 1}
    return ExecutionRun(
        execution_id="1", **{**known, **given}, commands=commands, steps=run_steps(playbook or {}, commands)
    )


def hostile_run(text: str, *, status: str = "FAILED") -> ExecutionRun:
    """It has this text wherever a playbook, a tool or a worker can put one."""
    only = command(
        text,
        input={text: text},
        output=[text, {"x": text}],
        stdout=text,
        stderr=text,
        error=text,
        worker=text,
        state=CommandState.FAILED,
    )
    playbook = {"workflow": [{"step": text, "desc": text, "next": {"arcs": [{"step": text, "when": text}]}}]}
    return made_run([only], playbook, path=text, error=text, status=status, workload={text: text}, notes=[text])


def in_a_row(*names: str) -> dict[str, Any]:
    """A playbook of these steps, one after the other."""
    following = [*names[1:], None]
    return {
        "workflow": [
            {"step": name, "tool": {"kind": "python"}, "next": {"arcs": [{"step": to}]} if to else None}
            for name, to in zip(names, following, strict=True)
        ]
    }


def data_of(page: str) -> Any:
    """What the page's script reads."""
    (found,) = _DATA.findall(page)
    return json.loads(found)


def shown(run: ExecutionRun) -> Any:
    return data_of(render_page(run))


def many_items(count: int) -> ExecutionRun:
    """A loop of so many items between two steps; each hundredth fails."""
    items = [
        command(
            "each",
            number // 50,
            item=number,
            state=CommandState.FAILED if number % 100 == 99 else CommandState.DONE,
            error=f"no price for {number}" if number % 100 == 99 else "",
            input={"code": "result = price(item)\n" * 3, "input": {"item": number}},
            output={"price": number * 1.2, "name": f"item {number}"},
        )
        for number in range(count)
    ]
    for number, one in enumerate(items):
        one.command_id = f"1:each:{number}"
    commands = [command("start"), *items, command("last", count // 50)]
    return made_run(commands, in_a_row("start", "each", "last"), ended=BEGIN + count / 500 + 1)

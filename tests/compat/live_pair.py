"""Two published Rust control planes, the published worker on one and ours on the other, and one playbook on both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat.event_shapes import shape_differences
from compat.postgres_server import PostgresServer
from compat.published_worker import PublishedWorker, published_worker
from compat.real_plane import our_worker
from compat.real_plane_values import QUIET_S, Executions, WorkerStart, real_plane
from compat.values_compare import differences
from compat.values_run import AT_ONCE, Observed

TRIES = 2
"""Only what differs this often in a row counts."""
HANGING = "hanging"
_WORDS = re.compile(r"[\w.+-]+|\S")
Run = Callable[[], Awaitable["Both"]]
Unexplained = Callable[[Sequence[str]], Sequence[str]]
"""Of differences those for which no reason is known."""


@dataclass
class Both:
    """What one playbook gave on each side, and where they differ (`path: theirs | ours`)."""

    name: str
    theirs: Observed
    ours: Observed
    lines: list[str]

    @property
    def outcomes(self) -> tuple[str, str]:
        return str(self.theirs["outcome"]), str(self.ours["outcome"])


class Pair:
    """Runs playbooks on both planes."""

    def __init__(self, theirs: Executions, ours: Executions, server: str) -> None:
        self._sides = (theirs, ours)
        self._server = server

    async def run(self, name: str, content: str, unexplained: Unexplained, *, below: str = "values") -> Both:
        """What differs, and does so again where no reason is known for it; the later runs wait longer."""
        both = await self._once(name, content, below, QUIET_S)
        for _ in range(TRIES - 1):
            if not unexplained(both.lines) or HANGING in both.outcomes:
                break
            again = await self._once(name, content, below, 2 * QUIET_S)
            known = {_at(line) for line in both.lines}
            both = Both(name, again.theirs, again.ours, [line for line in again.lines if _at(line) in known])
        return both

    async def _once(self, name: str, content: str, below: str, quiet_s: float) -> Both:
        runs = (self._observe(side, name, content, below, quiet_s) for side in self._sides)
        theirs, ours = await asyncio.gather(*runs)
        lines = differences(theirs, in_their_order(theirs, ours), self._server)
        if not any(_is_of_the_way(line) for line in lines):
            lines += shape_differences(theirs.get("shapes", {}), ours.get("shapes", {}))
        return Both(name, theirs, ours, lines)

    async def _observe(self, side: Executions, name: str, content: str, below: str, quiet_s: float) -> Observed:
        return await side.observe(name, await side.register(content), below=below, quiet_s=quiet_s)

    async def run_all(self, runs: Mapping[str, Run]) -> dict[str, Both]:
        """Some at a time; those that hang again, one by one, with a published worker that has all of its slots."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(run: Run) -> Both:
            async with places:
                return await run()

        found = dict(zip(runs, await asyncio.gather(*(one(run) for run in runs.values())), strict=True))
        for name in [name for name, both in found.items() if HANGING in both.outcomes]:
            await self._restart()
            found[name] = await runs[name]()
        return found

    async def _restart(self) -> None:
        for side in self._sides:
            if isinstance(side.worker, PublishedWorker):
                await side.worker.restart()

    async def register(self, contents: Sequence[str]) -> None:
        """Playbooks that others start."""
        for side in self._sides:
            for content in contents:
                await side.register(content)


def in_their_order(theirs: Any, ours: Any) -> Any:
    """`ours`, where printed objects with the keys of theirs have them in their order: that is the plane's, and another
    one in every run."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return {key: in_their_order(theirs.get(key), value) for key, value in ours.items()}
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        return [in_their_order(one, other) for one, other in zip(theirs, ours, strict=True)]
    if isinstance(theirs, str) and isinstance(ours, str) and theirs[:1] == ours[:1] == "{":
        return theirs if sorted(_WORDS.findall(theirs)) == sorted(_WORDS.findall(ours)) else ours
    return ours


def _is_of_the_way(line: str) -> bool:
    """Another step ran or a step ended otherwise: then other kinds of events were posted."""
    return _at(line).endswith(("outcome", ".status")) or "did not run" in line


def _at(line: str) -> str:
    return line.partition(": ")[0]


@asynccontextmanager
async def pair(server: str, directory: Path, *, ours_twice: bool = False) -> AsyncIterator[Pair]:
    """`ours_twice` puts our worker in the place of the published one: whatever differs then is the harness's."""

    def published(nats_url: str, server_url: str) -> AbstractAsyncContextManager[PublishedWorker]:
        return published_worker(nats_url, server_url, directory / "published-worker.log")

    starts: tuple[WorkerStart, WorkerStart] = (our_worker if ours_twice else published, our_worker)
    async with AsyncExitStack() as stack:
        sides: list[Executions] = []
        for index, start in enumerate(starts):
            postgres = stack.enter_context(PostgresServer())
            log = directory / f"control-plane-{index}.log"
            sides.append(await stack.enter_async_context(real_plane(postgres, log, start)))
        yield Pair(sides[0], sides[1], server)

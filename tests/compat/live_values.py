"""`make compat-values`: playbooks through the published Rust worker and through ours, each on a real Rust plane.

The recorded playbooks, those of `values/live/`, and random ones. Order and shape of the events and every value are
compared; what differs has a line with its reason in differences.yaml (also seen beside the development plane) or in
live.yaml (seen here alone), or the exit status is 1. `--write` also writes what came of it to `values/live.jsonl` and
tests/compat/values/live.md.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compat import published_worker, real_plane
from compat.document import write_pages
from compat.live_pair import Both, Pair, pair
from compat.live_table import LIVE_FOLDER, RESULTS, LiveTable, live_names, write_results
from compat.random_pairs import Explored, Explorer
from compat.random_playbooks import Playbook, text_of
from compat.values_compare import differences
from compat.values_run import CHILDREN, names, playbook_text, recorded
from compat.values_server import values_server
from noetl_worker.models import Dialect


def pack_variables(name: str, server: str) -> str:
    return playbook_text(name, server, LIVE_FOLDER) if name in live_names() else playbook_text(name, server)


async def run_named(both: Pair, wanted: Sequence[str], server: str, table: LiveTable) -> list[Both]:
    async def one(name: str) -> Both:
        return await both.run(name, pack_variables(name, server), partial(table.unexplained, name))

    return list((await both.run_all({name: partial(one, name) for name in wanted})).values())


async def run_random(both: Pair, server: str, table: LiveTable, count: int, seed: int) -> Explored:
    """Hypothesis is not asynchronous: it runs in a thread, and its playbooks here."""
    loop = asyncio.get_running_loop()

    async def one(name: str, playbook: Playbook) -> Both:
        content = text_of(playbook, server, f"random/{name}")
        return await both.run(name, content, table.unexplained_random, below="random")

    def run(drawn: Mapping[str, Playbook]) -> dict[str, Both]:
        runs = {name: partial(one, name, playbook) for name, playbook in drawn.items()}
        return asyncio.run_coroutine_threadsafe(both.run_all(runs), loop).result()

    explorer = Explorer(run, table.unexplained_random, count, seed)
    return await asyncio.to_thread(explorer.explore)


async def go(options: argparse.Namespace, table: LiveTable) -> tuple[list[Both], Explored]:
    wanted = options.playbooks or [*names(), *live_names()]
    explored = Explored()
    with values_server() as server, tempfile.TemporaryDirectory() as directory:
        async with pair(server, Path(directory), ours_twice=options.ours_twice) as both:
            await both.register([pack_variables(name, server) for name in CHILDREN])
            found = await run_named(both, wanted, server, table) if options.recorded else []
            show_named(found, table, server)
            if options.random:
                explored = await run_random(both, server, table, options.random, options.seed)
    return found, explored


def show_named(found: Sequence[Both], table: LiveTable, server: str) -> None:
    kept = recorded(Dialect.RUST)
    for one in found:
        left = table.unexplained(one.name, one.lines)
        if left:
            print(one.name, *left, sep="\n    ")
        drift = differences(kept[one.name], one.theirs, server) if one.name in kept else []
        if drift:
            print(f"{one.name}: the published worker gave what was not recorded of it", *drift, sep="\n    ")
    equal = sum(not table.why(one.name, one.lines) for one in found)
    new = sum(bool(table.unexplained(one.name, one.lines)) for one in found)
    print(f"{len(found)} playbooks: {equal} equal, {len(found) - equal - new} explained, {new} open")


def show_random(found: Explored, table: LiveTable, seed: int) -> None:
    for kind, one in found.new.items():
        print(f"--- {kind}", *one.lines, one.text, sep="\n")
    print("outcomes (published, ours):", dict(Counter(one.outcomes for one in found.seen.values())))
    equal, explained, left = found.counts(table.why_random)
    print(f"{len(found.seen)} random playbooks (--seed {seed}): {equal} equal, {explained} explained, {left} open")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100, help="how many random playbooks (default 100)")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="which ones (default: others each time)"
    )
    parser.add_argument("--no-recorded", dest="recorded", action="store_false", help="only random ones")
    parser.add_argument("--ours-twice", action="store_true", help="our worker in the place of the published one")
    parser.add_argument("--write", action="store_true", help=f"keep what came of it in {RESULTS.name}")
    parser.add_argument("playbooks", nargs="*", help="names of some of them (default: all)")
    options = parser.parse_args(arguments)
    real_plane.install()
    if not options.ours_twice:
        published_worker.install()
    table = LiveTable.load()
    found, explored = asyncio.run(go(options, table))
    show_random(explored, table, options.seed)
    if options.write:
        write_results(found, table, explored, options.seed)
        write_pages()
    is_new = any(table.unexplained(one.name, one.lines) for one in found)
    return 1 if is_new or explored.new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

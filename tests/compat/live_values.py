"""`make compat-values`: playbooks through the published Rust worker and through ours, each on a real Rust plane.

The recorded playbooks and those of `values/live/`. Order and shape of the events and every value are
compared; what differs has a line with its reason in differences.yaml (also seen beside the development plane) or in
live.yaml (seen here alone), or the exit status is 1. `--write` also writes what came of it to `values/live.jsonl` and
tests/compat/values/live.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compat import published_worker, real_plane
from compat.document import write_pages
from compat.live_pair import Both, Pair, pair
from compat.live_table import LIVE_FOLDER, RESULTS, LiveTable, live_names, write_results
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


async def go(options: argparse.Namespace, table: LiveTable) -> list[Both]:
    wanted = options.playbooks or [*names(), *live_names()]
    with values_server() as server, tempfile.TemporaryDirectory() as directory:
        async with pair(server, Path(directory), ours_twice=options.ours_twice) as both:
            await both.register([pack_variables(name, server) for name in CHILDREN])
            found = await run_named(both, wanted, server, table)
            show_named(found, table, server)
    return found


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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours-twice", action="store_true", help="our worker in the place of the published one")
    parser.add_argument("--write", action="store_true", help=f"keep what came of it in {RESULTS.name}")
    parser.add_argument("playbooks", nargs="*", help="names of some of them (default: all)")
    options = parser.parse_args(arguments)
    real_plane.install()
    if not options.ours_twice:
        published_worker.install()
    table = LiveTable.load()
    found = asyncio.run(go(options, table))
    if options.write:
        write_results(found, table)
        write_pages()
    return 1 if any(table.unexplained(one.name, one.lines) for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

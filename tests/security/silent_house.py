"""A house whose worker knows the plane and NATS by name, while a resolver does not answer for other names.

`python -m security.silent_house LOOP` runs it in a mount and network namespace of its own, where the system's resolver
is the silent one, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from integration.house import house
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.observability.probes import make_pages
from patience import PATIENCE_S, until

PLANE: Final = "localhost"
"""The development plane answers for no other name."""
NATS: Final = "nats.test"
STUCK: Final = 12
_POOL: Final = "noetl_worker_pool_waiting_seconds"
_CLONE_NEWNS, _CLONE_NEWNET, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x40000000, 4096, 16384, 1 << 18


def waiting_s(text: str) -> dict[str, float]:
    """By pool, what a scrape says of it."""
    lines = [line for line in text.splitlines() if line.startswith(_POOL)]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


async def seen(dialect: Dialect) -> dict[str, Any]:
    """What becomes of other commands, and of a second worker, beside twelve look-ups of one execution."""
    async with house(dialect, worker=False) as home:
        addresses = {
            "NATS_URL": home.nats.url.replace("127.0.0.1", NATS),
            "NOETL_SERVER_URL": home.plane.url.replace("127.0.0.1", PLANE),
        }
        variables = {**addresses, "WORKER_MAX_CONCURRENT": "20", "NOETL_WORKER_DRAIN_TIMEOUT_S": "0"}
        worker = await home.start_worker(**variables, NOETL_WORKER_EXECUTION_SHARE="1")
        worker.health.stands_after_s = 0.0
        pages = make_pages(worker.health)
        stuck = [RawCommand("http", {"url": f"http://{one}.silent.test/", "timeout": 600}) for one in range(STUCK)]
        silent = await home.plane.create_commands(stuck)

        async def text() -> str:
            return bytes((await pages["/metrics"]())[1]).decode()  # type: ignore[arg-type]

        async def some_wait() -> bool:
            return waiting_s(await text()).get("tool_names", 0) > 0

        await until(lambda: len(worker.deliveries.tasks) == STUCK, "all of them run")
        await until(some_wait, "those above the share wait")
        by_name = RawCommand("http", {"url": f"{addresses['NOETL_SERVER_URL']}/api/health"})
        others = await home.plane.create_commands([RawCommand("noop"), by_name] * 4, one_execution=False)
        await home.wait_terminal(*(one.event_id for one in others))
        ended = [home.terminal_events(one.event_id) for one in others]
        second = await home.start_worker(**variables)
        return {
            "others": ended,
            "silent": [home.terminal_events(one.event_id) for one in silent],
            "second": second.health.readiness(),
            "livez": await pages["/livez"](),
            "waiting_s": waiting_s(await text()),
        }


def _resolver_that_is_silent() -> socket.socket:
    """Give this process a network and a resolver of its own. Raises OSError where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")

    call("unshare", _CLONE_NEWNS | _CLONE_NEWNET)
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    directory = Path(tempfile.mkdtemp())
    hosts = f"127.0.0.1 {PLANE} {NATS}\n"
    files = {"resolv.conf": "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n", "hosts": hosts}
    for name, content in {**files, "nsswitch.conf": "hosts: files dns\n"}.items():
        (directory / name).write_text(content)
        call("mount", os.fsencode(directory / name), os.fsencode(f"/etc/{name}"), None, _MS_BIND, None)
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    up = struct.pack("16sh14x", b"lo", 1)
    fcntl.ioctl(asked, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP
    asked.bind(("127.0.0.1", 53))
    return asked


def in_a_namespace(loop: str) -> dict[str, Any] | None:
    """What it saw there on this loop; None: this user may not have one."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "security.silent_house", loop],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
        cwd=tests,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, sys.path)])},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def _main(loop: str) -> None:
    from noetl_worker.process.event_loop import run

    try:
        asked = _resolver_that_is_silent()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        print("null", flush=True)
        return

    async def main() -> None:
        found = await seen(Dialect.PYTHON)
        asked.setblocking(False)
        found["was_asked"] = bool(asked.recv(4096))
        print(json.dumps(found), flush=True)
        os._exit(0)  # not when the resolver is given up

    if loop == "asyncio":
        asyncio.run(main())
    else:
        run(main())


if __name__ == "__main__":
    _main(sys.argv[1])

"""Addresses of the probes of this machine's workers, and their answers, for the CLI commands `top` and `why`.

Each worker has an empty file in the outbox directory, where operators can find the file. The file's name is the address
of the worker's probes. A killed worker leaves its file behind, and its address then gives no answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.pipeline.outbox.directory import require_own_directory

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S: Final = 5.0

_ENDING: Final = ".probes"
_NAME: Final = re.compile(r"[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}")
_ANY: Final = ("0.0.0.0", "::", "[::]", "")


@contextmanager
def announced(directory: Path, address: str | None) -> Iterator[None]:
    """Have a file named `address` (HOST:PORT) in `directory` while the block is open, so that the CLI commands `top`
    and `why` find this worker's probes. If the file cannot be created, go on without the file."""
    path: Path | None = None
    if address is not None:
        with suppress(OSError, AttributeError):  # AttributeError: files have no owner on Windows
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_own_directory(directory)
            path = directory / f"{address}{_ENDING}"
            path.touch(mode=0o600)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                path.unlink()


def addresses_here(metrics_bind: str, directory: Path) -> list[str]:
    """Return the addresses (HOST:PORT) of the probes of this machine's workers: the address in the setting, and the
    addresses that workers have written to the outbox directory.

    Args:
        metrics_bind: the setting WORKER_METRICS_BIND, or "".
        directory: the outbox directory. It is ignored if other users may write to it.
    """
    names = [metrics_bind] if metrics_bind else []
    with suppress(OSError, AttributeError):  # the directory is missing, or not this user's
        require_own_directory(directory)
        found = sorted(path.name.removesuffix(_ENDING) for path in directory.glob(f"*{_ENDING}"))
        names += [name for name in found if _NAME.fullmatch(name)]
    return list(dict.fromkeys(map(_asked_at, names)))


async def ask_workers(addresses: Iterable[str], token: str = "") -> list[dict[str, Any]]:
    """Return the state of each worker (GET /debug/inflight) with its `address`. If `run --processes N` started
    several workers, their supervisor process answers for all of them.

    The state of a worker that does not answer has `error` instead. Its `is_gone` is true if nothing listens at the
    address.
    """
    import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=_TIMEOUT_S, verify=False) as client:
        answers = await asyncio.gather(*(_asked(client, address) for address in addresses))
    return [{"address": answer["address"], **look} for answer in answers for look in answer.get("processes", [answer])]


async def _asked(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    import httpx

    try:
        answer = await client.get(f"http://{address}/debug/inflight")
        body: Any = answer.json()
    except httpx.HTTPError as error:
        is_gone = isinstance(error, httpx.ConnectError)
        return {"address": address, "error": f"no answer: {str(error) or type(error).__name__}", "is_gone": is_gone}
    except ValueError:
        return {"address": address, "error": f"answers {answer.status_code} and no JSON: is it a worker's probe port?"}
    if answer.status_code != 200 or not isinstance(body, Mapping):
        reason = body.get("error", "") if isinstance(body, Mapping) else ""
        return {"address": address, "error": f"answers {answer.status_code} {reason}".strip()}
    return {"address": address, **body}


def _asked_at(bind: str) -> str:
    """Return the address at which a server bound to `bind` is reached: `127.0.0.1:9090` for `0.0.0.0:9090`."""
    host, _, port = bind.rpartition(":")
    return f"{'127.0.0.1' if host in _ANY else host}:{port}"

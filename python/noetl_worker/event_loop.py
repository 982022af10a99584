"""Which event loop runs us: uvloop where it is installed, the standard one elsewhere or when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from noetl_worker.errors import SettingsError

__all__ = ["run"]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], choice: str = "auto") -> T:
    """Run `main` to its end.

    Args:
        choice: NOETL_WORKER_LOOP: auto, uvloop or asyncio.

    Raises:
        SettingsError: uvloop was asked for and is not installed.
    """
    if choice != "asyncio":
        try:
            import uvloop
        except ImportError:
            if choice == "uvloop":
                main.close()
                raise SettingsError("NOETL_WORKER_LOOP", choice, "auto or asyncio: uvloop is not installed") from None
        else:
            result: T = uvloop.run(main)
            return result
    return asyncio.run(main)

"""`noetl-worker` and `python -m noetl_worker`."""

from __future__ import annotations

from noetl_worker.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()

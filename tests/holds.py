"""Whether this run decides by time: `make faults` and the soaks do, `make test` records it."""

from __future__ import annotations

import os
from typing import Final

HOLDS_TIMES: Final = bool(os.environ.get("TESTS_HOLD_TIMES"))
"""Set where a run has the machine to itself. Elsewhere a figure that depends on its speed fails nothing."""

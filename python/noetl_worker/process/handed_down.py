"""Values that the supervisor (`run --processes`) gives its workers: a listening socket, ports and its process id."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Final

SOCKET: Final = "NOETL_WORKER_PROBES_SOCKET"
"""Variable with the descriptor of the probes' socket. Its port is known before the worker runs, and outlives it."""
PORTS: Final = "NOETL_WORKER_PROBES_PORTS"
"""Variable with the ports of the probes of the supervisor and all its workers, separated by commas."""
PARENT: Final = "NOETL_WORKER_SUPERVISOR"
"""Variable with the supervisor's process id."""
_PR_SET_PDEATHSIG: Final = 1


def listening_socket() -> socket.socket | None:
    """Return the socket from the supervisor, or None if there is none. Commands do not inherit it."""
    descriptor = os.environ.pop(SOCKET, None)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)
    return socket.socket(fileno=int(descriptor))


def probe_ports() -> tuple[int, ...]:
    """Return the ports of the probes of the supervisor and all its workers; none without a supervisor."""
    return tuple(int(port) for port in os.environ.pop(PORTS, "").split(",") if port)


def end_with_parent() -> bool:
    """Drain when the supervisor is gone, however it ended (on Linux). Return True if there is a supervisor."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return False
    if sys.platform == "linux":
        import ctypes  # late: of the processes that bind probes, only this kind needs it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # the supervisor ended before the prctl call
        sys.exit(0)
    return True

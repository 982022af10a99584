"""A control plane and a NATS server for `noetl-worker dev` and for tests.

The control plane is a stand-in for the real ones. Tests compare its answers (statuses, keys, types) with recordings of
the real planes (tests/compat), and its claims with those recorded after the same events (tests/compat/values; known
differences are in claims.yaml). These differences are intended:

differs-from-upstream:

| what | the real plane | here |
|---|---|---|
| an end with a list-valued tool or at the first command (Python) | inferred as complete | the same, and it has ended |
| templates | each plane's own engine | ours, with each plane's rules (`rendering`) |
| single events `call.done`, then `command.completed` (Python v4.0.0) | steps run, the execution never ends | it ends |
| a parallel loop with a failed item (Python) | stays open, with `failed: true` | ends FAILED once all are back |
| `cases` of a step or tool | rendered with everything else, or dropped | reach the worker as written |
| simultaneous claims (Python) | two workers may both get 200 | one does |
| claim lock held by somebody else | happens by itself | only by `claims.hold(event_id)` |
| restart of the plane | state is in Postgres | state is in the process; `stop()` and `start()` keep it |
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noetl_worker.authoring.dev.nats_server import NatsServer
    from noetl_worker.authoring.dev.orchestration.playbook import Playbook
    from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
    from noetl_worker.authoring.dev.settings import PlaneSettings

__all__ = ["DevControlPlane", "NatsServer", "PlaneSettings", "Playbook", "RawCommand"]

_MODULES = {
    "DevControlPlane": "plane",
    "NatsServer": "nats_server",
    "PlaneSettings": "settings",
    "Playbook": "orchestration.playbook",
    "RawCommand": "plane",
}


def __getattr__(name: str) -> Any:
    """Import a public name at first use, so that `check` does not load the server."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

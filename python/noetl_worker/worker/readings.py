"""Gauges of a worker that are set twice a second. Setting the gauges at each command would slow every command."""

from __future__ import annotations

import time
from collections.abc import Collection

from noetl_worker.models.slots import Slots
from noetl_worker.observability import metrics
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.remote.plane.gate import Gate
from noetl_worker.remote.plane.servers import Servers

PULSE_S = 0.5


class Readings:
    """Sets a worker's gauges, such as used slots. The main loop calls `take` every PULSE_S seconds. A late call means
    that something has blocked the loop, and the delay is measured."""

    def __init__(self, slots: Slots, outbox: Outbox, servers: Servers, in_flight: Collection[object] = ()) -> None:
        self._slots, self._outbox, self._servers, self._in_flight = slots, outbox, servers, in_flight
        self._due_at: float | None = None

    def take(self) -> None:
        now, slots = time.monotonic(), self._slots
        if self._due_at is not None:
            metrics.LOOP_DELAY.observe(max(0.0, now - self._due_at))
        metrics.CONCURRENT.set(len(self._in_flight))
        metrics.SLOTS.set(slots.size)
        metrics.SLOTS_IN_USE.set(slots.used)
        metrics.SLOTS_LIMIT.set(min(slots.size, slots.ceiling()))
        metrics.LAST_START.set(slots.is_exclusive)
        metrics.PARKED_FOR_KIND.set(slots.parked_for_kind)
        metrics.PARKED_ELSEWHERE.set(slots.parked_elsewhere)
        metrics.OUTBOX_OLDEST.set(self._outbox.oldest_s())
        for plane, server in self._servers.named():
            self._take_gate(plane, "commands", server.gate if server else None)
            self._take_gate(plane, "results", server.store_gate if server else None)
        self._due_at = time.monotonic() + PULSE_S

    def _take_gate(self, plane: str, name: str, gate: Gate | None) -> None:
        """Set the gauges of one gate, which limits the concurrent requests to a plane. None stands for the gate of a
        plane that was not asked yet, and counts as fully open."""
        limit = self._servers.full if gate is None else 1 if gate.is_down else gate.limit()
        metrics.GATE_LIMIT.labels(plane, name).set(limit)
        metrics.GATE_IN_USE.labels(plane, name).set(gate.inside if gate else 0)
        metrics.GATE_WAITING.labels(plane, name).set(gate.waiting if gate else 0)
        metrics.GATE_DOWN.labels(plane, name).set(1 if gate and gate.is_down else 0)

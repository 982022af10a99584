"""Between a process and the control plane: each request travels alone, and may be lost, late or twice there."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from noetl_worker.errors import MaybeProcessed, NotSent
from noetl_worker.remote.transport.transport import Response
from simulate.clock import STRAND, Process, VirtualLoop
from simulate.plane import Command, Plane
from simulate.trace import Trace

URL = "http://plane.test"


@dataclass(slots=True)
class Weather:
    """What befalls the requests of one process (or of all). Chances are between 0 and 1."""

    lost: float = 0.0
    """A request or its answer vanishes, and the connection is reset."""
    slow_s: float = 0.0
    twice: float = 0.0
    """Something in between sends it again after a while; the first answer to come back is the answer."""
    is_down: bool = False
    """Connections are refused."""
    is_silent: bool = False
    """Requests leave and nothing comes back; they are processed when this is over, or never."""


class HttpNetwork:
    """Every request to the one plane."""

    def __init__(self, loop: VirtualLoop, plane: Plane, trace: Trace, seed: str) -> None:
        self.loop = loop
        self.plane = plane
        self.trace = trace
        self.chance = random.Random(f"{seed}:http")
        self.weather: dict[str, Weather] = {}
        self.refused: list[tuple[float, str]] = []
        """When which process was refused a connection; what its keepalive asks beside is not in it."""
        self.known: dict[tuple[Process, str], float] = {}
        """When which process was first told that the end of an execution's command is accepted."""
        self.on_sent: Callable[[Process, str, Mapping[str, Any]], None] = lambda *_: None

    def weather_of(self, name: str) -> Weather:
        """The weather of this process; "*" is everybody's."""
        return self.weather.setdefault(name, Weather())

    def latency_s(self, name: str) -> float:
        slow_s = max(self.weather_of(name).slow_s, self.weather_of("*").slow_s)
        return self.chance.uniform(0.001, 0.004) + (self.chance.random() ** 2) * slow_s

    def happens(self, name: str, what: str) -> bool:
        chance = max(getattr(self.weather_of(name), what), getattr(self.weather_of("*"), what))
        return bool(chance) and self.chance.random() < chance

    def is_down(self, name: str) -> bool:
        return self.weather_of(name).is_down or self.weather_of("*").is_down

    def is_silent(self, name: str) -> bool:
        return self.weather_of(name).is_silent or self.weather_of("*").is_silent


class SimTransport:
    """The product's `Transport` over the simulated network."""

    def __init__(self, network: HttpNetwork, process: Process) -> None:
        self._network = network
        self._process = process

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float | None
    ) -> Response:
        network, name = self._network, self._process.name
        request = (method, url.removeprefix(URL), dict(headers), json.loads(body) if body else {})
        network.on_sent(self._process, request[1], request[3])
        if self._process.is_dead or network.is_down(name):
            if STRAND.get() is self._process.main:
                network.refused.append((network.plane.clock.elapsed_s, name))
            await asyncio.sleep(0.001)
            raise NotSent(f"{method} {url}: connection refused")
        back: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        network.loop.outside(network.latency_s(name), self._arrive, request, back)
        # One that is sent again is answered by the plane's own words for it while the first is worked on.
        if network.happens(name, "twice") and not network.plane.end_with_work(request[1], request[3]):
            network.loop.outside(network.latency_s(name) + network.chance.random() * 3, self._arrive, request, back)
        try:
            answer = await asyncio.wait_for(back, timeout_s)
        except asyncio.TimeoutError:
            raise MaybeProcessed(f"{method} {url}: no answer in {timeout_s} s") from None
        if answer is None:
            raise MaybeProcessed(f"{method} {url}: connection reset")
        if answer.status == 202 and request[3]["events"][-1]["name"] != "step.enter":
            network.known.setdefault((self._process, request[3]["execution_id"]), network.loop.time())
        return answer

    def _arrive(self, request: tuple[str, str, dict[str, str], dict[str, Any]], back: asyncio.Future[Any]) -> None:
        network, name = self._network, self._process.name
        if self._process.is_dead:
            return
        if network.is_silent(name):  # TCP sends it again, until it gets through or nobody wants it any more
            network.loop.outside(1.0, self._arrive, request, back)
            return
        is_lost = network.happens(name, "lost")
        if is_lost and network.chance.random() < 0.5:
            network.trace.note("net", f"loses {request[1]} of {name}")
            network.loop.outside(network.latency_s(name), self._return, back, None)
            return
        command = network.plane.end_with_work(request[1], request[3])
        answer = network.plane.handle(*request)
        if command is not None and answer.status == 200:
            command.is_worked_on = True
            if is_lost:
                network.trace.note("net", f"cuts off {request[1]} of {name}")
                network.loop.outside(command.next_s / 2, self._return, back, None)
            network.loop.outside(command.next_s, self._worked, command, back, answer, is_lost)
            return
        if is_lost:
            network.trace.note("net", f"loses the {answer.status} to {request[1]} of {name}")
        network.loop.outside(network.latency_s(name), self._return, back, None if is_lost else answer)

    def _worked(self, command: Command, back: asyncio.Future[Any], answer: Response, is_lost: bool) -> None:
        is_there = not back.done() and not self._process.is_dead
        self._network.plane.worked(command, self._process, is_there=is_there, is_lost=is_lost)
        self._network.loop.outside(self._network.latency_s(self._process.name), self._return, back, answer)

    def _return(self, back: asyncio.Future[Any], answer: Response | None) -> None:
        if not back.done():
            back.set_result(answer)

    async def close(self) -> None:
        pass


def factory(network: HttpNetwork) -> Callable[..., SimTransport]:
    """Stands for `open_transport`: a transport of the process that asks."""

    def make(*_: Any, **__: Any) -> SimTransport:
        strand = STRAND.get()
        assert strand is not None, "a transport outside of every process"
        return SimTransport(network, strand.process)

    return make

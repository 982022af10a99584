"""Making a fault happen, and making it stop."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from noetl_worker.remote.transport.transport import Response
from simulate.plane import answer
from simulate.python_plane import PythonPlane
from simulate.schedule import FAULTS, Fault

if TYPE_CHECKING:
    from simulate.world import World

EXCUSED_S: Final = 90.0
"""After a fault: two ack_waits and a reconnect."""
_WEATHER: Final = {
    "http_lost": "lost",
    "http_slow": "slow_s",
    "http_twice": "twice",
    "http_down": "is_down",
    "http_silent": "is_silent",
}
_PAGE = Response(404, {"content-type": "text/html"}, b"<html><body>404 page not found</body></html>")
_BAD_GATEWAY = Response(502, {"content-type": "text/html"}, b"<html><body>502 Bad Gateway</body></html>")


class Faults:
    """The faults of one world. Each kind of schedule.FAULTS is a method `_<kind>`, or a row of a table."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._chance = random.Random(f"{seed}:faults")
        self._ends: dict[int, Callable[[], None]] = {}
        self._down: set[str] = set()
        self._serial = 0

    def begin(self, fault: Fault) -> None:
        world = self._world
        world.trace.note("world", f"fault {fault.kind} {fault.target} for {fault.lasts_s:g} s, size {fault.size:g}")
        if FAULTS[fault.kind].may_expire:
            world.witness.excuse(fault.target, world.clock.now + fault.lasts_s + EXCUSED_S)
        if fault.kind in _WEATHER:
            end = self._change_weather(fault)
        elif fault.kind in _TROUBLES:
            end = self._trouble(fault)
        else:
            end = getattr(self, f"_{fault.kind}")(fault)
        if end is not None:
            self._serial += 1
            self._ends[self._serial] = end
            world.loop.outside(fault.lasts_s, self._end, self._serial, fault)

    def keeps_down(self, name: str) -> bool:
        """Whether this worker is down because a fault says so."""
        return name in self._down

    def end_all(self) -> None:
        for serial in list(self._ends):
            self._ends.pop(serial)()

    def _end(self, serial: int, fault: Fault) -> None:
        end = self._ends.pop(serial, None)
        if end is not None:
            self._world.trace.note("world", f"fault {fault.kind} {fault.target} is over")
            end()

    # ── the plane and the way to it ──

    def _change_weather(self, fault: Fault) -> Callable[[], None]:
        weather, field = self._world.http.weather_of(fault.target), _WEATHER[fault.kind]
        calm: Any = False if field.startswith("is_") else 0.0
        setattr(weather, field, fault.size or True)
        return lambda: setattr(weather, field, calm)

    def _trouble(self, fault: Fault) -> Callable[[], None]:
        draw, size = _TROUBLES[fault.kind], fault.size

        def trouble(path: str) -> Response | None:
            return draw(self._chance, path) if self._chance.random() < size else None

        def end() -> None:
            self._world.plane.trouble = lambda _: None

        self._world.plane.trouble = trouble
        return end

    def _login_refused(self, _: Fault) -> Callable[[], None]:
        return self._flag(self._world.plane, "refuses_login")

    def _ack_timeout(self, _: Fault) -> Callable[[], None]:
        return self._flag(self._python_plane(), "loses_batches")

    def _claims_leak(self, _: Fault) -> Callable[[], None]:
        return self._flag(self._python_plane(), "leaks_claims")

    def _plane_forgets(self, fault: Fault) -> Callable[[], None]:
        self._python_plane().queue_up()
        return lambda: self._python_plane().restart(round(fault.size))

    def _plane_restarts(self, fault: Fault) -> Callable[[], None]:
        self._python_plane().queue_up()
        return lambda: self._restart(round(fault.size), self._chance.uniform(0.5, 10.0))

    def _restart(self, worked_off: int, down_s: float) -> None:
        self._python_plane().restart(worked_off, forgets_states=False)
        weather = self._world.http.weather_of("*")
        weather.is_down = True
        self._world.loop.outside(down_s, setattr, weather, "is_down", False)

    def _python_plane(self) -> PythonPlane:
        assert isinstance(self._world.plane, PythonPlane)
        return self._world.plane

    @staticmethod
    def _flag(owner: object, name: str) -> Callable[[], None]:
        setattr(owner, name, True)
        return lambda: setattr(owner, name, False)

    # ── NATS ──

    def _nats_cut(self, fault: Fault) -> None:
        self._world.nats.cut(fault.target)

    def _nats_stall(self, fault: Fault) -> Callable[[], None]:
        self._world.nats.stall(fault.target)
        return lambda: self._world.nats.unstall(fault.target)

    def _nats_slow(self, fault: Fault) -> Callable[[], None]:
        self._world.nats.slow_s[fault.target] = fault.size
        return lambda: self._world.nats.slow_s.update({fault.target: 0.0})

    def _nats_restart(self, fault: Fault) -> Callable[[], None]:
        forget_s = fault.size - 20.0  # two in three lose nothing
        self._world.nats.restart(forget_since=self._world.clock.now - forget_s if forget_s > 0 else None)

        def up() -> None:
            self._world.nats.is_down = False

        return up

    def _consumer_deleted(self, _: Fault) -> None:
        for name in list(self._world.stream.consumers):
            self._world.server.delete_consumer(self._world.stream, name)

    def _published_again(self, fault: Fault) -> None:
        commands = list(self._world.plane.commands.values())
        for command in self._chance.sample(commands, min(len(commands), round(fault.size))):
            self._world.plane.publish(command, again=True)

    # ── processes ──

    def _crash(self, fault: Fault) -> Callable[[], None]:
        life = self._world.lives.get(fault.target)
        if life is not None and not life.is_over:
            life.kill()
            self._world.nats.cut(fault.target)
        return self._back_later(fault.target)

    def _stop(self, fault: Fault) -> Callable[[], None]:
        return self._stopped(fault, levels=1)

    def _stop_now(self, fault: Fault) -> Callable[[], None]:
        return self._stopped(fault, levels=2)

    def _stopped(self, fault: Fault, *, levels: int) -> Callable[[], None]:
        life = self._world.lives.get(fault.target)
        for _ in range(levels):
            if life is not None:
                life.stop()
        return self._back_later(fault.target)

    def _back_later(self, name: str) -> Callable[[], None]:
        """A supervisor starts it again; when it has not ended by then, as soon as it has."""
        self._down.add(name)

        def back() -> None:
            life = self._world.lives.get(name)
            if life is not None and not life.is_over:
                self._world.loop.outside(1.0, back)
                return
            self._down.discard(name)
            self._world.start(name)

        return back

    def _pause(self, fault: Fault) -> Callable[[], None] | None:
        return self._frozen(fault, whole=True)

    def _block(self, fault: Fault) -> Callable[[], None] | None:
        return self._frozen(fault, whole=False)

    def _frozen(self, fault: Fault, *, whole: bool) -> Callable[[], None] | None:
        life = self._world.lives.get(fault.target)
        if life is None or life.is_over:
            return None
        life.freeze(whole=whole)
        return life.thaw

    def _clock_jump(self, fault: Fault) -> None:
        life = self._world.lives.get(fault.target)
        if life is not None:
            life.process.skew_s += fault.size


def _busy(chance: random.Random, _: str) -> Response:
    code, after = chance.choice((("pool_saturated", "3"), ("db_unavailable", "1"), ("queue_unavailable", "")))
    headers = {"retry_after": after} if after else {}
    return answer(chance.choice((503, 503, 429)), {"detail": {"code": code}}, **headers)


def _broken(_: random.Random, path: str) -> Response:
    return answer(
        500, {"detail": "503: {'code': 'db_unavailable'}"} if path == "/api/events" else {"detail": "internal"}
    )


def _page(chance: random.Random, path: str) -> Response:
    """A proxy in front of a plane that is being rolled out; its 404 page is met by claims and events."""
    is_met = path.endswith("/claim") or path.startswith("/api/events")
    return chance.choice((_PAGE, _BAD_GATEWAY)) if is_met else _BAD_GATEWAY


_TROUBLES: dict[str, Callable[[random.Random, str], Response]] = {
    "plane_busy": _busy,
    "plane_broken": _broken,
    "proxy_page": _page,
}

"""What is remembered of commands that have ended here."""

from __future__ import annotations

from noetl_worker.pipeline.delivery.in_flight import InFlight, Seen


def test_finished_command_is_known_for_two_ack_waits_and_forgotten_later() -> None:
    now = [0.0]
    flight = InFlight(60, clock=lambda: now[0])
    flight.finish("7")
    for at, seen in ((0.0, Seen.FINISHED), (59.0, Seen.FINISHED), (119.0, Seen.FINISHED), (180.0, Seen.NEW)):
        now[0] = at
        assert flight.classify(7, 1) is seen, at


def test_any_number_of_finished_commands_is_known() -> None:
    flight = InFlight(60, clock=lambda: 0.0)
    for number in range(20_000):
        flight.finish(number)
    assert flight.classify("0", 1) is Seen.FINISHED

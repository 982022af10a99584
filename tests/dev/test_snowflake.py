from __future__ import annotations

from noetl_worker.dev.snowflake import DEFAULT_EPOCH_MS, Snowflake


def test_first_id_of_node_one_one_millisecond_after_the_epoch() -> None:
    assert Snowflake(1, now_ms=lambda: DEFAULT_EPOCH_MS + 1, first=lambda: 0).next_id() == 4198400


def test_ids_only_grow_when_the_clock_jumps_back_an_hour() -> None:
    clock = [DEFAULT_EPOCH_MS + 10_000_000]
    ids = Snowflake(3, now_ms=lambda: clock[0])
    before = ids.next_id()
    clock[0] -= 3_600_000
    assert before < ids.next_id() < ids.next_id()


def test_sequence_overflow_borrows_from_the_next_millisecond_without_waiting() -> None:
    ids = Snowflake(1023, now_ms=lambda: DEFAULT_EPOCH_MS + 5)
    made = [ids.next_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {(one >> 12) & 1023 for one in made} == {1023}


def test_id_is_above_every_observed_id_even_with_a_clock_behind() -> None:
    ids = Snowflake(0, now_ms=lambda: DEFAULT_EPOCH_MS + 5)
    command_event_id = 767527441685282836
    ids.observe(command_event_id)
    assert ids.next_id() > command_event_id


def test_two_of_one_node_number_seldom_make_the_same_id() -> None:
    clock = [DEFAULT_EPOCH_MS]
    one, other = Snowflake(7, now_ms=lambda: clock[0]), Snowflake(7, now_ms=lambda: clock[0])
    same = 0
    for _ in range(500):
        clock[0] += 1
        same += one.next_id() == other.next_id()
    assert same < 10  # 500 / 2,048 are to be expected; with sequences from 0 it was all of them

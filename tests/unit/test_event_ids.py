from __future__ import annotations

import itertools

from noetl_worker.remote.plane.rust.event_ids import EventIds

OF_A_PLANE = 384897026912813056


def test_id_is_of_the_millisecond_after_the_one_that_it_has_to_be_above() -> None:
    made = EventIds(7).next_above(OF_A_PLANE)
    assert made > OF_A_PLANE
    assert made >> 22 == (OF_A_PLANE >> 22) + 1
    assert (made >> 12) & 1023 == 7


def test_ids_above_the_same_one_are_different() -> None:
    ids = EventIds(1023)
    assert len({ids.next_above(OF_A_PLANE) for _ in range(4096)}) == 4096


def test_id_above_one_that_is_taken_is_another() -> None:
    ids = EventIds(0)
    made = [ids.next_above(OF_A_PLANE)]
    for _ in range(10):
        made.append(ids.next_above(made[-1]))
    assert all(late > early for early, late in itertools.pairwise(made))


def test_two_of_one_node_number_seldom_make_the_same_id() -> None:
    same = sum(EventIds(7).next_above(OF_A_PLANE) == EventIds(7).next_above(OF_A_PLANE) for _ in range(500))
    assert same < 10  # 500 / 4,096 are to be expected; with sequences from 0 it would be all of them

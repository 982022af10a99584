"""Where the steps of a graph stand."""

from __future__ import annotations

import random
from itertools import pairwise

from noetl_worker.authoring.run_page.layout import lay_out


def test_step_stands_one_rank_after_the_last_of_those_that_lead_to_it() -> None:
    layout = lay_out(4, [(0, 1), (1, 2), (0, 3), (2, 3)])
    assert [rank for rank, _ in layout.places] == [0, 1, 2, 3]


def test_arc_over_several_ranks_has_a_place_in_each_and_passes_no_step() -> None:
    layout = lay_out(4, [(0, 1), (1, 2), (2, 3), (0, 3)])
    inner = layout.routes[0, 3][1:-1]
    assert [rank for rank, _ in inner] == [1, 2]
    assert all(abs(at - layout.places[rank][1]) >= 1 for rank, at in inner)


def test_arc_that_leads_back_moves_no_step_and_a_step_may_lead_to_itself() -> None:
    layout = lay_out(3, [(0, 1), (1, 2), (2, 0), (1, 1)])
    assert [rank for rank, _ in layout.places] == [0, 1, 2]
    assert layout.routes[2, 0] == [layout.places[2], layout.places[0]]
    assert layout.routes[1, 1] == [layout.places[1], layout.places[1]]


def test_way_that_was_taken_is_a_straight_line() -> None:
    edges = [(0, 1), (0, 2), (0, 3), (2, 4), (4, 5)]
    layout = lay_out(6, edges, [(0, 2), (2, 4), (4, 5)])
    assert len({round(layout.places[step][1], 6) for step in (0, 2, 4, 5)}) == 1


def test_no_two_steps_of_a_rank_are_nearer_than_one_whatever_the_arcs_are() -> None:
    chance = random.Random(28)
    for _ in range(200):
        count = chance.randint(1, 14)
        edges = [(chance.randrange(count), chance.randrange(count)) for _ in range(chance.randint(0, 24))]
        layout = lay_out(count, edges, edges[::3])
        assert set(layout.routes) == set(edges)
        ranks: dict[int, list[float]] = {}
        for rank, at in layout.places:
            ranks.setdefault(rank, []).append(at)
        for found in ranks.values():
            found.sort()
            assert all(after - before > 0.999 for before, after in pairwise(found))


def test_playbook_of_a_thousand_steps_in_a_row_is_laid_out() -> None:
    layout = lay_out(3000, [(step, step + 1) for step in range(2999)])
    assert layout.places[-1] == (2999, 0.0)


def test_no_step_at_all_is_no_error() -> None:
    assert lay_out(0, []).places == []

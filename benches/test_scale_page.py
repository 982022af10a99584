"""docs/scale.md is what scale.json gives, and what it shows is what was asked for."""

from __future__ import annotations

import scale_page

FOUND = scale_page.load()


def test_page_is_what_the_figures_give() -> None:
    assert scale_page.DOCUMENT.read_text(encoding="utf-8") == scale_page.document(FOUND), (
        "run `python benches/bench_scale.py page`"
    )


def test_a_command_on_the_real_plane_was_acknowledged_as_reported() -> None:
    assert set(FOUND["real_plane"]["settled"]) == {"ack:reported"}


def test_what_one_costs_is_in_the_page_for_a_thousand_workers() -> None:
    page = scale_page.document(FOUND)
    full = next(line for line in page.splitlines() if line.startswith("| 1,000 full"))
    assert f"| {1000 * FOUND['slots'] / scale_page.COMMAND_S:,.0f} |" in full

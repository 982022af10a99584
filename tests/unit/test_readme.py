"""The first page: what it links to is there, and its picture is of the demo as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__, "../../..").resolve()
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")),
)


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith(("http:", "https:")):
            assert (ROOT / page).parent.joinpath(link).resolve().exists(), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_a_page_fit_a_terminal(page: str) -> None:
    """Tables above all: a terminal shows a row that is wider as a puzzle."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 120] == []


def test_list_of_pages_has_every_page() -> None:
    listed = set(re.findall(r"\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in ROOT.glob("docs/*.md")} - {"README.md", "reliability-figures.md"}


def test_first_page_is_one_screen_of_promise_two_commands_a_picture_and_links() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 450


def test_picture_is_of_the_demo_as_it_is() -> None:
    picture = (ROOT / "docs/live-view.svg").read_text(encoding="utf-8")
    demo = yaml.safe_load((ROOT / "examples/demo.yaml").read_text(encoding="utf-8"))
    steps = re.findall(r"done(?:&#160;)+([a-z_]+)", picture)
    assert steps
    assert set(steps) <= {step["step"] for step in demo["workflow"]}

"""The page as the system's Chromium shows it, driven by playwright. Part of `make pages`, and of the night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noetl_worker.authoring.run_page.run import CommandState, ExecutionRun
from run_page.chromium_page import PHONE, WIDE, contrasts, opened
from run_page.told_plane import CHROMIUM, command, hostile_run, in_a_row, made_run, many_items

pytestmark = [pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]

THEMES = ("light", "dark")
MOST_NODES = 3000
ATTACKS = (
    "</script><script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    '"><svg onload=window.attacked=1>',
    "javascript:window.attacked=1",
)
NODES = "document.querySelectorAll('*').length"


def small_run() -> ExecutionRun:
    items = [command("each", 1, item=number, output={"n": number}) for number in range(3)]
    for number, item in enumerate(items):
        item.command_id = f"1:each:{number}"
    items[2].state, items[2].error = CommandState.FAILED, "no price for 2\nTraceback"
    first = command("start", input={"code": "print('hi')\nresult = 1\n"}, output={"count": 3}, stdout="hi\n")
    return made_run([first, *items], in_a_row("start", "each", "last"), status="FAILED", workload={"day": "monday"})


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_page_opens_without_a_request_and_is_no_wider_than_the_screen(
    browser: Any, tmp_path: Path, theme: str, size: Any
) -> None:
    with opened(browser, small_run(), tmp_path, theme=theme, size=size) as page:
        assert page.title() == "a/b: failed"
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 23)"
        assert dark == (theme == "dark")
        assert page.get_by_text("each [2]: no price for 2").is_visible()


@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_on_its_ground(browser: Any, tmp_path: Path, theme: str) -> None:
    """WCAG AA: 4.5 to 1 for text."""
    open_ends = [
        command(state.value, number, state=state, ended=None)
        for number, state in enumerate((CommandState.WAITING, CommandState.RUNNING))
    ]
    for run in (small_run(), made_run(open_ends, status="RUNNING", ended=None)):
        with opened(browser, run, tmp_path, theme=theme) as page:
            for _ in page.get_by_role("treeitem").all():
                assert contrasts(page) == []
                page.locator("#timeline").press("ArrowDown")


def test_accessibility_tree_names_what_is_seen(browser: Any, tmp_path: Path) -> None:
    with opened(browser, small_run(), tmp_path) as page:
        tree = page.locator("body").aria_snapshot()
    for part in (
        'heading "a/b" [level=1]',
        'button "start: python, done"',
        'button "each: 1 of 3 failed, failed"',
        'button "last: python, not run"',
        'treeitem "start, python, done, 80 ms"',
        'treeitem "each [2], python, failed, 80 ms" [level=2] [selected]',
        'searchbox "Search steps, commands and errors"',
        'region "Error"',
        'heading "The way it took" [level=2]',
    ):
        assert part in tree, tree


def test_timeline_is_walked_opened_and_read_by_keyboard(browser: Any, tmp_path: Path) -> None:
    with opened(browser, small_run(), tmp_path) as page:
        timeline, title = page.locator("#timeline"), page.locator("#details h2")
        assert title.text_content() == "each [2]"
        timeline.focus()
        for key, wanted in (
            ("Home", "The run"),
            ("ArrowDown", "start"),
            ("ArrowDown", "each"),
            ("ArrowRight", "each [0]"),
            ("End", "each [2]"),
            ("ArrowUp", "each [1]"),
            ("ArrowLeft", "each"),
        ):
            page.keyboard.press(key)
            assert title.text_content() == wanted, key
            active = timeline.get_attribute("aria-activedescendant")
            assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
        page.keyboard.press("ArrowLeft")
        assert page.get_by_role("treeitem").count() == 3
        page.locator(".node").nth(0).focus()
        page.keyboard.press("Enter")
        assert title.text_content() == "start"
        assert page.get_by_role("region", name="Printed, stdout").text_content() == "hi\n"
        assert page.get_by_role("region", name="Input, code").text_content() == "print('hi')\nresult = 1\n"


@pytest.mark.heavy_on_loop("the page of 10,000 commands is made in it")
def test_ten_thousand_commands_are_few_elements_however_they_are_walked(browser: Any, tmp_path: Path) -> None:
    with opened(browser, many_items(10_000), tmp_path) as page:
        counts = [page.evaluate(NODES)]
        page.locator("#timeline").focus()
        for key in ("Home", "ArrowDown", "ArrowDown", "ArrowRight", "PageDown", "End", "PageUp"):
            page.keyboard.press(key)
            counts.append(page.evaluate(NODES))
        assert page.locator("#details h2").text_content().startswith("each [99")
        page.get_by_role("checkbox", name="failed only").check()
        assert page.locator("#count").text_content() == "100 commands found"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        counts.append(page.evaluate(NODES))
        assert max(counts) < MOST_NODES, counts


def test_search_finds_an_item_by_its_error(browser: Any, tmp_path: Path) -> None:
    with opened(browser, many_items(1000), tmp_path) as page:
        page.get_by_role("searchbox").fill("no price for 599")
        assert page.locator("#count").text_content() == "1 command found"


@pytest.mark.parametrize("text", ATTACKS)
def test_attack_in_a_name_an_output_or_an_error_runs_nothing_and_is_shown_as_text(
    browser: Any, tmp_path: Path, text: str
) -> None:
    with opened(browser, hostile_run(text), tmp_path) as page:
        assert page.locator("h1").text_content() == text
        assert page.locator("#details h2").text_content() == text
        page.locator("#timeline").press("Home")
        assert page.evaluate("window.attacked") is None
        assert page.locator("img").count() == 0


def test_printed_page_has_the_rows_of_a_loop_and_no_controls(browser: Any, tmp_path: Path) -> None:
    with opened(browser, small_run(), tmp_path, theme="dark") as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.get_by_role("treeitem").count() == 6
        assert not page.get_by_role("searchbox").is_visible()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert contrasts(page) == []
        left = "document.querySelector('{} .track').getBoundingClientRect().left"
        assert page.evaluate(left.format("#axis")) == page.evaluate(left.format("#timeline"))

"""What lies within a command, and two executions beside each other, in the system's Chromium. Part of `make pages`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noetl_worker.authoring.run_page.page import render_page
from noetl_worker.authoring.run_page.run import CommandState, ExecutionRun, RunTask
from run_page.chromium_page import PHONE, WIDE, contrasts, opened
from run_page.told_plane import BEGIN, CHROMIUM, command, in_a_row, made_run

pytestmark = [pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]


def failed_try(then: str, error: str, **more: Any) -> dict[str, Any]:
    return {"status": "error", "at_ms": 0, "duration_ms": 20, "then": then, "error": error, **more}


def shop(factor: int = 2) -> ExecutionRun:
    """200 items, each a list: every fiftieth was let pass, the last one failed; and a child."""
    items = []
    for number in range(200):
        item = command("each", number // 20, item=number, value={"u": number}, output={"price": number * factor})
        item.command_id = f"1:each:{number}"
        fine = {"status": "ok", "at_ms": 20, "duration_ms": 50, "stdout": f"priced {number}\n"}
        tries = [failed_try("continue", "HTTP 500", answer="Sorry, the shelf is empty")] if number % 50 == 9 else []
        item.tasks = [
            RunTask("fetch", "http", {"url": f"http://shop/{number}"}, None, tries),
            RunTask("price", tries=[fine]),
        ]
        if tries:
            item.passed = "fetch: HTTP 500"
        items.append(item)
    items[-1].state, items[-1].error = CommandState.FAILED, "no price for 199"
    kid = command("kid", 11, child="2", output={"execution_id": "2"})
    run = made_run([command("start"), *items, kid], in_a_row("start", "each", "kid"), status="FAILED", ended=BEGIN + 2)
    child = made_run([command("inner", 12, stdout="in the child\n"), command("then", 13)], in_a_row("inner", "then"))
    child.execution_id, child.path, child.parent, child.started = "2", "shop/kid", "1", BEGIN + 1
    run.children = [child]
    return run


def names(page: Any) -> list[str]:
    return [row.get_attribute("aria-label").partition(",")[0] for row in page.get_by_role("treeitem").all()]


def test_item_that_a_rule_let_pass_is_no_green_tick_and_opens_to_its_tasks(browser: Any, tmp_path: Path) -> None:
    with opened(browser, shop(), tmp_path) as page:
        page.get_by_role("searchbox").fill("shelf empty")
        assert page.locator("#count").text_content() == "4 commands found"
        page.locator("#timeline").focus()
        for key in ("Home", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        assert page.locator("#details .pill").text_content() == "! a failure let pass"
        assert page.get_by_role("region", name="Error").text_content() == "let pass: fetch: HTTP 500"
        page.keyboard.press("ArrowRight")
        assert names(page)[:4] == ["each", "each [9]", "fetch", "price"]
        page.keyboard.press("ArrowDown")
        assert page.get_by_role("region", name="Answer").text_content() == "Sorry, the shelf is empty"
        assert "http://shop/9" in page.get_by_role("region", name="Input").text_content()
        assert '"u": 9' in page.get_by_role("region", name="Item").text_content()


def test_search_finds_words_in_any_order_and_no_part_of_an_id(browser: Any, tmp_path: Path) -> None:
    with opened(browser, shop(), tmp_path) as page:
        for words, count in (("price 199", "1 command"), ("priced 137", "1 command"), ("1:each:", "0 commands")):
            page.get_by_role("searchbox").fill(words)
            assert page.locator("#count").text_content() == f"{count} found", words
        page.get_by_role("searchbox").fill("1:each:7")
        assert page.locator("#count").text_content() == "1 command found"


def test_child_is_a_row_that_opens_and_a_page_of_its_own_with_a_way_back(browser: Any, tmp_path: Path) -> None:
    with opened(browser, shop(), tmp_path) as page:
        page.locator(".node").nth(2).click()
        page.locator("#timeline").press("ArrowRight")
        assert names(page)[-3:] == ["kid", "inner", "then"]
        page.locator("#details").get_by_role("link", name="shop/kid").click()
        assert (page.locator("h1").text_content(), names(page)) == ("shop/kid", ["run", "inner", "then"])
        page.locator("#facts").get_by_role("link", name="1").click()
        assert page.locator("h1").text_content() == "a/b"


def test_output_is_one_stream_in_the_order_of_time(browser: Any, tmp_path: Path) -> None:
    with opened(browser, shop(), tmp_path) as page:
        page.get_by_role("button", name="output").click()
        assert page.locator("#count").text_content() == "201 lines, in the order of the ends"
        assert page.locator(".row.line code").first.text_content() == "priced 0"
        page.locator("#timeline").press("End")
        assert page.locator(".row.line code").last.text_content() == "in the child"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_two_executions_stand_beside_each_other_with_what_differs(
    browser: Any,
    tmp_path: Path,
    theme: str,
    size: Any,
) -> None:
    other = shop(3)
    other.execution_id = "77"
    with opened(browser, shop(), tmp_path, theme=theme, size=size, against=other) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.locator("#compared h2").text_content() == "Beside 77"
        rows = page.locator("#compared-rows tr").all_inner_texts()
        assert "output of 199" in next(row for row in rows if row.startswith("each"))
        page.get_by_role("checkbox", name="differing only").check()
        assert page.locator("#count").text_content() == "199 commands found"
        assert contrasts(page) == []
        page.locator("#timeline").focus()
        for key in ("Home", "ArrowRight", "ArrowDown"):
            page.keyboard.press(key)
        assert '"price": 3' in page.get_by_role("region", name="Output there").text_content()


def test_page_without_another_execution_has_no_place_for_one() -> None:
    assert '"against":null' in render_page(shop())

"""The page as the system's Chromium shows it, driven by playwright. Part of `make pages`, and of the night."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.authoring.run_page.page import page_of
from noetl_worker.authoring.run_page.run import CommandState, ExecutionRun
from run_page.told_plane import BEGIN, CHROMIUM, command, hostile_run, in_a_row, made_run, many_items

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install --group pages")
pytestmark = [pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]

THEMES = ("light", "dark")
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
MOST_NODES = 3000
ATTACKS = (
    "</script><script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    '"><svg onload=window.attacked=1>',
    "javascript:window.attacked=1",
)
NODES = "document.querySelectorAll('*').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@contextmanager
def opened(browser: Any, run: ExecutionRun, folder: Path, *, theme: str = "light", size: Any = WIDE) -> Iterator[Any]:
    """The page of a run in a tab that must neither ask anybody nor complain."""
    file = folder / "run.html"
    file.write_text(page_of(run, written=BEGIN + 60), encoding="utf-8")
    context = browser.new_context(color_scheme=theme, viewport=size)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    assert [text for text in complaints if not text.startswith("data:")] == []
    context.close()


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
                assert page.evaluate(CONTRASTS) == []
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
        assert page.evaluate(CONTRASTS) == []
        left = "document.querySelector('{} .track').getBoundingClientRect().left"
        assert page.evaluate(left.format("#axis")) == page.evaluate(left.format("#timeline"))


CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (color) => [0.2126, 0.7152, 0.0722]
    .reduce((sum, share, at) => sum + share * linear(color[at] / 255), 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll('body *:not(svg *, script, noscript *, .hidden, .skip)')) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
    if (!node.checkVisibility()) continue;
    const [one, other] = [light(parts(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) low.push([node.className || node.tagName, node.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return low;
}"""

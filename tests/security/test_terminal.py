"""A stranger's text writes to the terminal of who reads it: clipboard (OSC 52), title, lines that nobody printed."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
import structlog
from rich.table import Table
from rich.text import Text

import logging_guard
import noetl_worker
from integration.processes import Ended, command_line, typed
from noetl_worker.observability.logging import configure_logging
from noetl_worker.observability.terminal import harmless_json, safe_console

PACKAGE = Path(noetl_worker.__file__).parent
CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
C1 = "\x9b2J\x85"
HOSTILE = CLIPBOARD + C1
YAML = HOSTILE.encode("unicode_escape").decode()


def playbook(directory: Path) -> Path:
    file = directory / "p.yaml"
    file.write_text(
        f'metadata: {{name: "n{YAML}", path: "p{YAML}"}}\n'
        f'workload: {{text: "w{YAML}"}}\n'
        "workflow:\n"
        f'  - step: start\n    desc: "{YAML}"\n    tool: {{kind: python, code: "result = {{{{ text }}}}"}}\n'
        f"    next: [{{step: last}}]\n"
        "  - step: last\n    tool:\n      kind: python\n      code: raise ValueError(text)\n"
        '      input: {text: "{{ text }}"}\n'
    )
    return file


def assert_harmless(ended: Ended, *, speaks: bool = True) -> None:
    said = ended.out + ended.err
    assert not [char for char in set(said) if not char.isprintable() and char not in "\n\t"], said
    assert bool(said) is speaks


def test_playbook_writes_nothing_to_the_terminal_of_dev(tmp_path: Path) -> None:
    """The path, a name, a value or an error of a playbook has the sequence; `dev`, then `why` and `report` show it."""
    state = {"XDG_STATE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert_harmless(command_line(tmp_path, "dev", str(playbook(tmp_path)), **state))
    assert_harmless(typed("dev", str(playbook(tmp_path)), "--dialect", "rust", "--json", **state))
    assert_harmless(typed("why", "last", **state))
    assert_harmless(typed("why", "last", "--json", **state))
    assert_harmless(typed("report", "last", "-o", str(tmp_path / "page.html"), **state))


@pytest.mark.parametrize(
    "words",
    [
        ("check", "{name}"),
        ("dev", "{name}"),
        ("dev", "{name}/{name}.yaml"),
        ("exec", "shell", "--config", '{{"{name}": 1}}'),
        ("{name}",),
        ("check", "--{name}"),
        ("run", "--nats-url", "{name}"),
        ("test", "{name}"),
    ],
    ids=lambda words: "-".join(words),
)
def test_error_about_a_name_writes_nothing_to_the_terminal(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a file, a field or a flag has the sequence."""
    monkeypatch.chdir(tmp_path)
    assert_harmless(typed(*(word.format(name=f"x{HOSTILE}") for word in words)))


@pytest.mark.parametrize("more", [(), ("--json",)], ids=str)
def test_result_of_a_tool_writes_nothing_to_the_terminal_of_exec(more: tuple[str, ...], tmp_path: Path) -> None:
    """What a tool returns and prints has the sequence."""
    code = f"text = {HOSTILE!r}\nprint(text)\nresult = {{'value': text}}"
    ended = command_line(tmp_path, "exec", "python", "--config", json.dumps({"code": code}), *more)
    assert_harmless(ended)
    if more:
        assert HOSTILE in json.loads(ended.out)["payload"]["result"]["context"]["value"]


def test_line_of_the_log_writes_nothing_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field of a log line on a terminal has the sequence."""
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    with logging_guard.kept():
        configure_logging("debug", "console")
        structlog.get_logger("noetl_worker").warning("line_written", error=HOSTILE)
    assert "line_written" in written.getvalue()
    assert not {"\x1b", "\x07", "\x9b"} & set(written.getvalue())


def test_console_writes_its_own_colours_and_nobody_elses() -> None:
    """A cell of a table on a terminal has the sequence."""
    written = io.StringIO()
    console = safe_console(file=written, force_terminal=True, width=200)
    table = Table("cell")
    table.add_row(Text(HOSTILE, style="bold"))
    console.print(table)
    console.print(HOSTILE, markup=False)
    assert "\x1b[1m" in written.getvalue()
    assert not [text for text in ("\x1b]", "\x07", "\x9b", "\x85") if text in written.getvalue()]


def test_json_stays_the_same_value_without_its_control_characters() -> None:
    """(no attack)"""
    value = {"a": HOSTILE + "\u202e\U000e0001\ud800 \xa0é漢"}
    text = harmless_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()
    assert "é漢" in text


def test_nothing_else_of_the_package_writes_to_a_terminal() -> None:
    """(no attack) One module makes text harmless; apart are what begins a process, and what runs a command's code."""
    ways = {"typer.echo", "typer.secho", "click.echo", "print", "Console", "sys.stderr.write", "sys.stdout.write"}
    apart = {"observability/terminal.py", "__main__.py", "command_group.py", "python_command.py"}
    found = [
        f"{name}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        if (name := file.relative_to(PACKAGE).as_posix()) not in apart and file.name not in apart
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ways
    ]
    assert found == []

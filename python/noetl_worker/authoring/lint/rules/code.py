"""Lint rules NW6: mistakes in the source code, shell commands and secrets of a playbook. The code is parsed, and never
run."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any, Final

from noetl_worker.authoring.lint.findings import Inspected
from noetl_worker.authoring.outline import Path, ToolPart, texts_below, tool_parts
from noetl_worker.text.secrets.strength import Strength, rate_strength
from noetl_worker.text.templates.template import has_template
from noetl_worker.tools.fields import field_spellings
from noetl_worker.tools.python.python_code import compile_source

_TEMPLATE: Final = re.compile(r"\{\{[^{}]*\}\}|\{%[^{}%]*%\}")
_AT: Final = re.compile(r"^(?:script does not parse: )?(.*?) \(line (\d+), position \d+\)$", re.DOTALL)
_SHELLS: Final = frozenset({"sh", "bash", "dash"})
_UNCLOSED: Final = ("Unterminated quoted string", 'while looking for matching `"', "while looking for matching `'")
_PART_OF_SHELL: Final = re.compile(
    r"""\\. | '[^']*' | "(?:\\.|[^"\\])*" | (?<!\S)\#[^\n]* | (?P<open>['"])""", re.DOTALL | re.VERBOSE
)
"""Pattern of an escape, quote or comment in a shell command. The group `open` is an unclosed quote."""
_SHELL_S: Final = 5.0
_RHAI_S: Final = 5.0
_SECRET_NAME: Final = re.compile(
    r"(?:^|[-_.])(?:password|passwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|client[-_]?secret|authorization)$",
    re.IGNORECASE,
)
_SECRET_TEXT: Final = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[abprs]-[A-Za-z0-9-]{20,}|glpat-[\w-]{20}|sk-[A-Za-z0-9_-]{32,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})|-----BEGIN (?:\w+ )*PRIVATE KEY-----"
)
_LEAST_SIGNS: Final = 12
_LEAST_SPREAD: Final = 2.8
"""Entropy in bits per character above which a text may be a secret. Words of a language have less entropy."""


def check_code(inspection: Inspected) -> None:
    for part in tool_parts(inspection.document):
        if part.kind == "python":
            _check_python(inspection, part)
        elif part.kind == "rhai":
            _check_rhai(inspection, part)
        elif part.kind == "shell":
            _check_shell(inspection, part)
    for name in ("workload", "workflow", "workbook"):
        for path, text in texts_below((name,), inspection.document.get(name)):
            _check_secret(inspection, path, text)


def _code_texts(part: ToolPart) -> Iterator[tuple[Path, str]]:
    """Yield the path and text of a tool's `code`, which may also be in its `spec`."""
    for path, block in ((part.path, part.config), ((*part.path, "spec"), part.config.get("spec"))):
        code = block.get("code") if isinstance(block, dict) else None
        if isinstance(code, str):
            yield (*path, "code"), code


def _check_python(inspection: Inspected, part: ToolPart) -> None:
    for path, code in _code_texts(part):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile_source(code)
        except SyntaxError as error:
            if not has_template(code):
                line = error.lineno or 1
                inspection.add("NW601", inspection.playbook.word_place(path, line), f"python, line {line}: {error.msg}")
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            inspection.add("NW601", path, f"python: {str(error) or 'too deeply nested'}")


def _check_rhai(inspection: Inspected, part: ToolPart) -> None:
    run = _rhai()
    for path, code in _code_texts(part):
        if run is None or has_template(code):
            continue
        kind, _, message, _ = run("return;\n" + code, b"{}", _RHAI_S, lambda host, address: "not while it is checked")
        if kind == "configuration" and (found := _AT.match(message)) is not None:
            line = max(int(found[2]) - 1, 1)
            inspection.add("NW602", inspection.playbook.word_place(path, line), f"rhai, line {line}: {found[1]}")


def _rhai() -> Any:
    """Return the Rust function that runs a Rhai script, to find syntax errors; None in a build without Rhai."""
    try:
        from noetl_worker import _core
    except ImportError:
        return None
    return _core.run_rhai if "rhai" in _core.FEATURES else None


# ── shell ───────────────────────────────────────────────────────────────────────────────────────


def _check_shell(inspection: Inspected, part: ToolPart) -> None:
    from noetl_worker.tools.kinds.shell.shell import ShellConfig

    shell = shutil.which(str(part.config.get("shell") or "sh"))
    if shell is None or shell.rpartition("/")[2] not in _SHELLS:
        return
    names = {"command", *(other for other, name in field_spellings(ShellConfig, {}).items() if name == "command")}
    for name in names & part.config.keys():
        given, path = part.config[name], (*part.path, name)
        for index, command in enumerate(given if isinstance(given, list) else [given]):
            if isinstance(command, str) and ("'" in command or '"' in command):
                _check_command(inspection, (*path, index) if isinstance(given, list) else path, command, shell)


def _check_command(inspection: Inspected, path: Path, command: str, shell: str) -> None:
    text = _TEMPLATE.sub(lambda found: "x" + "\n" * found[0].count("\n"), command)
    if has_template(text):  # a template with braces inside it, whose end is not known here
        return
    try:
        done = subprocess.run(
            [shell, "-n"],
            input=text,
            capture_output=True,
            text=True,
            timeout=_SHELL_S,
            check=False,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeError):
        return
    if done.returncode and any(words in done.stderr for words in _UNCLOSED):
        line = _line_of_open_quote(text)
        message = f"shell, line {line}: a quote is opened and not closed"
        inspection.add("NW603", inspection.playbook.word_place(path, line), message)


def _line_of_open_quote(text: str) -> int:
    """Return the number of the line in a shell command where an unclosed quote begins; 1 if no quote is unclosed."""
    opened = next((found for found in _PART_OF_SHELL.finditer(text) if found["open"]), None)
    return text.count("\n", 0, opened.start()) + 1 if opened is not None else 1


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────


def _check_secret(inspection: Inspected, path: Path, text: str) -> None:
    """Report a mistake if a text is probably a secret. The message does not quote the text."""
    name = str(path[-1])
    if (known := _SECRET_TEXT.search(text)) is not None:
        line = text.count("\n", 0, known.start()) + 1
        inspection.add(
            "NW604", inspection.playbook.word_place(path, line), f"'{name}' has what looks like a secret in it"
        )
    elif _SECRET_NAME.search(name) and not has_template(text) and "$" not in text and _is_random(text):
        inspection.add("NW604", path, f"'{name}' looks like a secret")


def _is_random(text: str) -> bool:
    last = text.strip().rpartition(" ")[2]  # `Bearer ...`
    if len(last) < _LEAST_SIGNS or rate_strength(last) is not Strength.STRONG:
        return False
    counts = [last.count(sign) / len(last) for sign in set(last)]
    has_both = any(sign.isdigit() for sign in last) and any(sign.isalpha() for sign in last)
    return has_both and -sum(share * math.log2(share) for share in counts) > _LEAST_SPREAD

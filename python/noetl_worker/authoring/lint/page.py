"""The page docs/check.md, which is made from the codes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from noetl_worker.authoring.lint.codes import CODES, GROUPS, Code

_HEAD = """\
# Checks of a playbook

`noetl-worker check PATH...` looks for mistakes before anything runs ([laptop.md](laptop.md)). This page is made by
`make docs` of the codes.

An error is what a plane refuses, or what fails when it runs. What runs and does something else than it says is a
warning; `--strict` ends with 1 for those too. `--plane python` and `--plane rust` judge for that plane alone. Without
`--plane` either one counts, and the message names it. The examples here leave out the head of a playbook (NW108).

A line with the comment `# noetl: ignore NW309` is not looked at for this code, nor is the line below such a comment;
without a code, for none.
"""


def page() -> str:
    return "\n".join([_HEAD, *_lines()])


def _lines() -> Iterator[str]:
    for prefix, title in GROUPS.items():
        yield f"## {title}\n"
        for code in CODES.values():
            if code.name.startswith(prefix):
                yield from _entry(code)


def _entry(code: Code) -> Iterator[str]:
    yield f"### {code.name}: {code.title}\n"
    if code.plane:
        plane = code.plane.capitalize()
        said = f"Does not work on the {plane} plane. A warning; an error with `--plane {code.plane}` where it fails."
    elif code.is_judged:
        said = "An error where a plane refuses the playbook for it, else a warning."
    else:
        said = f"{'An error' if code.severity == 'error' else 'A warning'}."
    yield f"{said}\n"
    yield f"```yaml\n{code.example}```\n"
    yield textwrap.fill(code.mend, 120, break_long_words=False, break_on_hyphens=False) + "\n"

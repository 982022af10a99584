"""The content of docs/check.md, which is generated from the codes of `noetl-worker check`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from noetl_worker.authoring.lint.codes import CODES, GROUPS, Code

_HEAD = """\
# Checks of a playbook

`noetl-worker check PATH...` looks for mistakes before anything runs ([laptop.md](laptop.md)). `make docs` writes this
page from the list of codes.

A mistake is an error if a plane refuses the playbook because of it, or if a step fails because of it. Parts that run,
but do something else than they seem to do, are warnings. With `--strict`, `check` ends with 1 for warnings too.
`--plane python` and `--plane rust` check for one plane. Without `--plane`, `check` reports mistakes for either plane,
and the message names the plane. The examples here leave out the head of a playbook (NW108).

The comment `# noetl: ignore NW309` turns this code off for its own line. A comment alone on a line counts for the line
below. Without a code, the comment turns all codes off.
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

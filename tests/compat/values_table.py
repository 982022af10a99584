"""Two tables of differences: what our values, and the development plane's claims, may differ in, and why.

`python tests/compat/values_table.py` shows what it says; `--write` runs the playbooks and brings it up to date: lines
that no longer differ go, new differences come in as `open`, to be mended or given a reason by hand. What is accepted in
place of a recorded value is in `values/ours.jsonl` (accepted_values.py).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
VALUES = HERE / "values" / "differences.yaml"
CLAIMS = HERE / "values" / "claims.yaml"
CLASSES = {
    "worker": "fault or limit of the published worker",
    "plane": "limit of the real plane that the development plane does not copy",
    "ours": "deliberate; of each which playbook it breaks, and why it stays",
    "race": "another one in every run",
    "open": "not settled",
}
PLANES = ("python", "rust")
TITLES = {"python": "Python", "rust": "Rust"}
OPEN = "open"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The pure one takes a third of a second for a table."""
RACE = "race"
"""Class of what may differ and need not: its lines are never stale."""
HEAD = """\
# Where a value of ours (this worker, the development plane) is not the recorded one (published worker, real plane).
# reasons: name -> class (worker, plane, ours, open) and text; of ours which playbook it breaks, and why it stays.
# everywhere: lines for any playbook of a plane; `+`: a key that only ours has, `-`: one that only theirs has.
# Then by plane and playbook: path -> reason; `*` is any text. A line that no longer differs fails the test.
# Brought up to date by `make values`, which keeps reasons and drops and adds lines.
"""


@dataclass
class Table:
    """`differences.yaml` (our worker, the published one) or `claims.yaml` (the development plane, the real one)."""

    file: Path
    reasons: dict[str, dict[str, str]]
    everywhere: dict[str, dict[str, str]]
    playbooks: dict[str, dict[str, dict[str, str]]]
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> Table:
        found: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _LOADER)
        by_plane = {plane: found.get(plane) or {} for plane in PLANES}
        everywhere = {plane: found["everywhere"][plane] or {} for plane in PLANES}
        return cls(file, found["reasons"], everywhere, by_plane)

    def without(self, kind: str) -> Table:
        """The same, less the lines whose reason is of that class."""

        def kept(lines: Mapping[str, str]) -> dict[str, str]:
            return {path: why for path, why in lines.items() if self.reasons[why]["class"] != kind}

        everywhere = {plane: kept(lines) for plane, lines in self.everywhere.items()}
        playbooks = {plane: {name: kept(own) for name, own in by.items()} for plane, by in self.playbooks.items()}
        return Table(self.file, self.reasons, everywhere, playbooks)

    def save(self) -> None:
        self.file.write_text(HEAD + "\n".join(self._lines()) + "\n", encoding="utf-8")

    def _lines(self) -> Iterable[str]:
        yield "reasons:"
        for name, reason in sorted(self.reasons.items()):
            told = "".join(f", {key}: {_quoted(reason[key])}" for key in ("text", "breaks") if key in reason)
            yield f"  {name}: {{class: {reason['class']}{told}}}"
        yield "everywhere:"
        for plane in PLANES:
            yield f"  {plane}:"
            yield from (f"    {_quoted(path)}: {why}" for path, why in sorted(self.everywhere[plane].items()))
        for plane in PLANES:
            yield f"{plane}:"
            for playbook, lines in sorted(self.playbooks[plane].items()):
                yield f"  {playbook}:"
                yield from (f"    {_quoted(path)}: {why}" for path, why in lines.items())

    # ── what it says ────────────────────────────────────────────────────────────────────────────

    def _matches(self, pattern: str, path: str) -> bool:
        found = self._patterns.get(pattern)
        if found is None:
            parts = (re.escape(part) for part in pattern.split("*"))
            found = self._patterns[pattern] = re.compile(".*".join(parts))
        return found.fullmatch(path) is not None

    def unexplained(self, plane: str, playbook: str, lines: Sequence[str]) -> list[str]:
        """Differences (`path: theirs | ours`) that no line is about."""
        own = self.playbooks[plane].get(playbook, {})
        left = [line for line in lines if not any(self._matches(one, _path(line)) for one in own)]
        return [line for line in left if not any(self._matches(one, _signed(line)) for one in self.everywhere[plane])]

    def settled(self, plane: str, playbook: str, lines: Sequence[str]) -> list[str]:
        """Of these differences those that are not another one in every run."""

        def is_race(line: str) -> bool:
            return RACE in {self.reasons[why]["class"] for why in self.reasons_of(plane, playbook, line)}

        return [line for line in lines if not is_race(line)]

    def reasons_of(self, plane: str, playbook: str, line: str) -> list[str]:
        """Names of the reasons of a playbook that are about one difference; those for every playbook left out."""
        own = self.playbooks[plane].get(playbook, {})
        return [why for one, why in own.items() if self._matches(one, _path(line))]

    def stale(self, plane: str, playbook: str, lines: Sequence[str]) -> list[str]:
        """Lines of this playbook that nothing differs in any more."""
        paths = [_path(line) for line in lines]
        own = self.playbooks[plane].get(playbook, {})
        settled = [one for one, why in own.items() if self.reasons[why]["class"] != RACE]
        return [one for one in settled if not any(self._matches(one, path) for path in paths)]

    def stale_everywhere(self, plane: str, lines: Mapping[str, Sequence[str]]) -> list[str]:
        paths = {_signed(line) for found in lines.values() for line in found}
        return [one for one in self.everywhere[plane] if not any(self._matches(one, path) for path in paths)]

    def why(self, plane: str, playbook: str) -> list[str]:
        """Names of the reasons of a playbook, each once; those for every playbook left out."""
        return list(dict.fromkeys(self.playbooks[plane].get(playbook, {}).values()))

    # ── bringing it up to date ──────────────────────────────────────────────────────────────────

    def update(self, plane: str, found: Mapping[str, Sequence[str]]) -> None:
        """Drop what is stale, add what is new as `open`, of the playbooks that were run."""
        for path in self.stale_everywhere(plane, found):
            del self.everywhere[plane][path]
        for playbook, lines in found.items():
            own = self.playbooks[plane].setdefault(playbook, {})
            for path in self.stale(plane, playbook, lines):
                del own[path]
            for line in self.unexplained(plane, playbook, lines):
                own[shortened(_path(line))] = OPEN
            if not own:
                del self.playbooks[plane][playbook]


def shortened(path: str) -> str:
    """A line for new differences: all that differ in the value of one step, until they are looked at."""
    step, mark, _ = path.partition(".value")
    return f"{step}.value*" if mark else path


def _path(line: str) -> str:
    return line.partition(": ")[0]


def _signed(line: str) -> str:
    """The path with a sign where only one side has the key."""
    path, _, values = line.partition(": ")
    sign = "+" if values.startswith('"<absent>" | ') else "-" if values.endswith(' | "<absent>"') else ""
    return sign + path


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ── the pages ───────────────────────────────────────────────────────────────────────────────────


def _recorded_claims() -> Iterable[Mapping[str, Any]]:
    for plane in PLANES:
        with (VALUES.parent / f"exchanges-{plane}.jsonl").open(encoding="utf-8") as lines:
            yield from (record for record in map(json.loads, lines) if "claim" in record)


def claims_page(claims: Table, playbooks: Sequence[str], not_compared: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`not_compared`: playbooks, by plane."""
    yield "# The development plane beside the real ones"
    yield ""
    yield "What the published workers posted is posted to the development plane, and its claims are compared with the"
    yield "recorded ones (`tests/compat/values/claims.yaml`). Not compared, or not to its end, is a playbook of which"
    yield "there is no recording, or none of a post before a claim. Of a claim that the recording has cut"
    are_cut = [bool(one.get("cut")) for one in _recorded_claims()]
    yield f"({sum(are_cut):,} of {len(are_cut):,}) only what is left is compared: a name that the development plane"
    yield "alone has is not seen there. Not copied are three faults of the real ones: work that is dropped when the"
    yield "client hangs up, a store that takes minutes for unbroken text, and a `step.exit` that issues a loop again."
    yield ""
    yield "| plane | playbooks | equal | differ, each for a reason below | not compared |"
    yield "|---|---|---|---|---|"
    left = {}
    for plane in PLANES:
        differing = [name for name in playbooks if claims.why(plane, name)]
        left[plane] = [name for name in not_compared[plane] if name not in differing]
        equal = len(playbooks) - len(differing) - len(left[plane])
        yield f"| {TITLES[plane]} | {len(playbooks)} | {equal} | {len(differing)} | {len(left[plane])} |"
    for plane in PLANES:
        yield ""
        yield from item(f"Not compared on the {TITLES[plane]} plane: {', '.join(left[plane]) or 'none'}.", "")
        yield ""
        yield f"Differences on the {TITLES[plane]} plane, and their playbooks:"
        yield ""
        for reason in sorted(claims.reasons):
            found = [name for name in playbooks if reason in claims.why(plane, name)]
            if found:
                yield from item(f"- {claims.reasons[reason]['text']}: {', '.join(found)}")


def counts_of(table: Table, plane: str, playbooks: Sequence[str]) -> tuple[int, int, int, int]:
    """How many there are, are equal, differ for a reason, and are not settled."""
    differing = [name for name in playbooks if table.why(plane, name)]
    unsettled = sum(any(table.reasons[why]["class"] == OPEN for why in table.why(plane, name)) for name in differing)
    return len(playbooks), len(playbooks) - len(differing), len(differing) - unsettled, unsettled


def recorded_page(table: Table, playbooks: Sequence[str]) -> Iterator[str]:
    yield "# Values beside the published workers"
    yield ""
    yield f"{len(playbooks)} small playbooks, one behaviour each, were run with each published worker on its own real"
    yield "control plane (Python NoETL 4.0.0; noetl-server 3.54.0 with noetl-worker 5.52.0). `make test` runs them"
    yield "through this worker and the development plane in both dialects, and compares every step's value, the"
    yield "outcome and the events. `make values` makes this page from `differences.yaml`."
    yield ""
    yield "| plane | playbooks | equal | differ, each for a reason below | not settled |"
    yield "|---|---|---|---|---|"
    for plane in PLANES:
        yield f"| {TITLES[plane]} | " + " | ".join(map(str, counts_of(table, plane, playbooks))) + " |"
    yield ""
    yield "## Shapes that differ wherever they occur"
    yield ""
    for plane in PLANES:
        for path, why in sorted(table.everywhere[plane].items()):
            yield from item(f"- {TITLES[plane]}, `{path}`: {table.reasons[why]['text']}")
    yield ""
    yield "## Reasons"
    used = {why for plane in PLANES for name in table.playbooks[plane] for why in table.why(plane, name)}
    yield from reasons_of_each_class({name: table.reasons[name] for name in used})
    yield ""
    yield "## Playbooks"
    yield ""
    yield "| playbook | Python plane | Rust plane |"
    yield "|---|---|---|"
    for playbook in playbooks:
        cells = (", ".join(table.why(plane, playbook)) or "equal" for plane in PLANES)
        yield f"| {playbook} | " + " | ".join(cells) + " |"


def reasons_of_each_class(reasons: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    for kind, title in CLASSES.items():
        found = [name for name in sorted(reasons) if reasons[name]["class"] == kind]
        if found:
            yield ""
            yield f"{title[0].upper()}{title[1:]}:"
            yield ""
            for name in found:
                breaks = reasons[name].get("breaks")
                yield from item(f"- `{name}`: {reasons[name]['text']}" + (f". Breaks: {breaks}" if breaks else ""))


def item(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


# ── as a program ────────────────────────────────────────────────────────────────────────────────


def main(arguments: Sequence[str]) -> int:
    sys.path.insert(0, str(HERE.parent))
    from compat import accepted_values
    from compat.document import pages, write_pages
    from compat.postgres_server import PostgresServer
    from compat.values_replay import replay
    from compat.values_run import compare, names

    table, claims = Table.load(VALUES), Table.load(CLAIMS)
    if "--write" in arguments:
        kept = {}
        for plane in PLANES:
            with PostgresServer() as postgres:
                found = compare(plane, names(), postgres)
            table.update(plane, {name: seen.lines for name, seen in found.items()})
            kept |= {(plane, name): seen.ours for name, seen in found.items() if name in table.playbooks[plane]}
            claims.update(plane, asyncio.run(replay(plane, names())))
        accepted_values.write(kept)
        table.save()
        claims.save()
        write_pages()
    else:
        sys.stdout.write("\n".join(pages().values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

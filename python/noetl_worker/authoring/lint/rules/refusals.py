"""The check whether a plane would refuse to register the playbook (authoring/dev/registration).

If another rule has reported a mistake at the same line and column, that mistake is raised to an error. Otherwise the
plane's reason is reported as a new mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from noetl_worker.authoring.dev.positions import Place
from noetl_worker.authoring.dev.registration.python_model import refused_by_python
from noetl_worker.authoring.dev.registration.rust_types import refused_by_rust
from noetl_worker.authoring.dev.registration.shapes import Refusal, value_at
from noetl_worker.authoring.lint.findings import Inspected, Mistake
from noetl_worker.authoring.outline import Path
from noetl_worker.tools.fields import nearest

_READERS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Iterator[Refusal]]]]] = {
    "python": ("NW511", refused_by_python),
    "rust": ("NW507", refused_by_rust),
}
_HEAD: Final = ("apiVersion", "kind", "metadata")
_EVERYWHERE: Final = ("NW100", "NW503")
"""Codes of mistakes that already say why a plane refuses the playbook. The refusal is then not reported again."""


def check_refusals(inspection: Inspected) -> None:
    document = inspection.document
    if not document or ("cases" in document and "workflow" not in document):
        return
    missing = [name for name in _HEAD if name not in document]
    if missing:
        words = ", ".join(missing[:-1]) + (" and " if missing[1:] else "") + missing[-1]
        inspection.add("NW108", Place(1, 1), f"{words} {'are' if missing[1:] else 'is'} missing: no plane takes it")
    found: dict[tuple[int, int], list[Mistake]] = {}
    for mistake in inspection.found:
        found.setdefault((mistake.line, mistake.column), []).append(mistake)
    for plane, (code, refusals) in _READERS.items():
        if inspection.plane in (None, plane):
            for refusal in refusals(document):
                inspection.refusers.add(plane)
                if refusal.path or refusal.missing not in _HEAD:
                    _report(inspection, plane, code, refusal, found)
    if inspection.plane in (None, "rust"):
        for _, place, _ in inspection.playbook.duplicates:
            for mistake in found.get((place.line, place.column), ()):
                inspection.refusers.add("rust")
                inspection.refuse(mistake, "rust")


def _report(
    inspection: Inspected,
    plane: str,
    code: str,
    refusal: Refusal,
    found: Mapping[tuple[int, int], Sequence[Mistake]],
) -> None:
    known = [one for place in sorted(_places(inspection, refusal)) for one in found.get(place, ())]
    judged = [one for one in known if one.code[:3] in ("NW1", "NW2", "NW3", "NW4")]
    if judged:
        for mistake in judged:
            inspection.refuse(mistake, plane)
    elif not any(one.code in _EVERYWHERE for one in known):
        what = "a playbook like this is refused" if plane == "python" else "it is refused"
        place = inspection.playbook.key_place(refusal.path) if refusal.path else Place(1, 1)
        inspection.add(code, place, f"{what}: {refusal.text}{_hint(refusal)}")


def _hint(refusal: Refusal) -> str:
    return f" ('{refusal.missing}')" if refusal.missing and refusal.missing not in refusal.text else ""


def _places(inspection: Inspected, refusal: Refusal) -> set[tuple[int, int]]:
    """Return the (line, column) pairs where another rule may have reported the mistake that the plane refuses.

    These are the positions of the refused value, of its key, and of misspellings of a missing key.
    """
    playbook, path = inspection.playbook, refusal.path
    paths: list[Path] = [path]
    if refusal.missing:
        keys = value_at(inspection.document, path)
        paths += (
            [(*path, key) for key in keys if nearest(str(key), [refusal.missing])] if isinstance(keys, dict) else []
        )
        if path == ("workflow",):  # no step is named `start`
            paths.append(("workflow", 0, "step"))
    found = {place for one in paths for place in (playbook.value_place(one), playbook.key_place(one))}
    return {(place.line, place.column) for place in found}

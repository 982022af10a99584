"""The results of tests as a JUnit XML file, which CI systems can show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from noetl_worker.authoring.dev.playbook_tests.tests_run import FinishedTest

_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow, not even escaped."""


def write_junit(ends: Sequence[FinishedTest], file: Path) -> None:
    """Write the results of tests to a file as JUnit XML. Raises OSError."""
    root = ET.Element("testsuites", _counts(ends))
    for name in dict.fromkeys(str(end.file.file) for end in ends):
        of_file = [end for end in ends if str(end.file.file) == name]
        suite = ET.SubElement(root, "testsuite", {"name": _text(name), **_counts(of_file)})
        for end in of_file:
            test = ET.SubElement(
                suite,
                "testcase",
                {
                    "classname": _text(end.file.playbook.stem),
                    "name": _text(end.test.name),
                    "file": _text(name),
                    "line": str(end.test.line),
                    "time": f"{end.seconds:.3f}",
                },
            )
            if end.lines:
                failure = ET.SubElement(test, "failure", {"message": _text(end.lines[0]), "type": "difference"})
                failure.text = _text("\n".join(end.lines))
    ET.indent(root)
    ET.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _counts(ends: Sequence[FinishedTest]) -> dict[str, str]:
    failed = sum(bool(end.lines) for end in ends)
    seconds = sum(end.seconds for end in ends)
    return {"tests": str(len(ends)), "failures": str(failed), "errors": "0", "time": f"{seconds:.3f}"}


def _text(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)

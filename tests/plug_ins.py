"""Plug-ins as packages are installed: a distribution in a directory on the path, with an entry point."""

from __future__ import annotations

from pathlib import Path


def install(directory: Path, name: str, tool: str) -> None:
    """Into `directory`: the distribution `some-tools 1.0`, whose entry point `name` is the class at "module:Class"."""
    about = directory / "some_tools-1.0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: some-tools\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[noetl_worker.tools]\n{name} = {tool}\n")

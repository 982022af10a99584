"""Where the text of a setting comes from: flags, the environment, a `.env` file, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from noetl_worker.setting_line import SettingLine

__all__ = ["chosen_texts"]

EMPTY_MEANS_OFF: Final = frozenset({"WORKER_METRICS_BIND"})
"""An empty variable counts as unset, but for these, which it switches off."""


def chosen_texts(
    lines: Iterable[SettingLine], environment: Mapping[str, str], flags: Mapping[str, str | None], dotenv: Path
) -> dict[str, str]:
    """Variable -> text for each setting that is given; a source is asked for the variable, then for its aliases."""
    from_file = {key: value or "" for key, value in dotenv_values(dotenv).items()} if dotenv.is_file() else {}
    explicit = {key: value for key, value in flags.items() if value is not None}
    sources = (explicit, _with_port(environment), from_file)
    found = {line.variable: _first_given((line.variable, *line.aliases), sources) for line in lines}
    return {variable: text for variable, text in found.items() if text is not None}


def _first_given(names: tuple[str, ...], sources: tuple[Mapping[str, str], ...]) -> str | None:
    for source in sources:
        for name in names:
            if name in source and (source[name].strip() or name in EMPTY_MEANS_OFF):
                return source[name]
    return None


def _with_port(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Cloud Run's PORT is the metrics port unless WORKER_METRICS_BIND says otherwise (Rust worker's rule)."""
    if "WORKER_METRICS_BIND" in environment or not environment.get("PORT"):
        return environment
    return {**environment, "WORKER_METRICS_BIND": f"0.0.0.0:{environment['PORT']}"}

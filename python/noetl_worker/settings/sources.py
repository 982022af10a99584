"""The sources of settings, the strongest first: flags, the environment, a `.env` file, a NATS context."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from noetl_worker.errors import SettingsError
from noetl_worker.settings.context import context_texts
from noetl_worker.settings.line import FILE_SUFFIX, SettingLine
from noetl_worker.settings.tools import FAMILIES

EMPTY_MEANS_OFF: Final = frozenset({"WORKER_METRICS_BIND"})
"""Variables in which an empty text means "off". Any other empty variable counts as unset."""
ENVIRONMENT: Final = "environment"
_OURS: Final = ("NOETL_WORKER_", "NOETL_DUCKDB_")
"""Prefixes of environment variables that only this program uses."""
_SHARED: Final = ("NOETL_", "NATS_", "WORKER_")
"""Prefixes of environment variables that other programs use too. Such a variable counts as mistyped only if it is very
similar to a setting's name."""
_LEAST_ALIKE: Final = 0.85
"""Least similarity, from 0 to 1, at which a variable with a prefix in `_OURS` counts as a mistyped setting. The value
is high because these names begin alike."""
_LEAST_ALIKE_IF_SHARED: Final = 0.93
"""Least similarity, from 0 to 1, at which a variable with a prefix in `_SHARED` counts as a mistyped setting."""
_SERVICE_VARIABLE: Final = re.compile(
    r"NOETL_WORKER_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Pattern of the variables that Kubernetes sets in each pod for a service `noetl-worker` or `noetl-worker-...`. These
variables are not reported as unknown settings."""
GONE: Final[Mapping[str, str]] = {
    "NOETL_WORKER_ALLOW_OVERRIDE": "a plug-in replaces no built-in kind; give its tool a kind of its own",
    "NOETL_WORKER_DEAD_LETTER_SUBJECT": "dead letters are kept on noetl.dead_letters; move the old ones to a stream "
    "that has this subject",
    "NOETL_WORKER_RATE_LIMIT": "bound how many commands run at the same time by WORKER_MAX_CONCURRENT or "
    "NOETL_WORKER_KIND_LIMITS",
}
"""Advice by variable, for removed settings whose removal changes a worker's behaviour."""


@dataclass(frozen=True, slots=True)
class GivenText:
    """The value that a source, such as a flag or the environment, gives for a setting, as unparsed text."""

    text: str
    source: str
    """Name of the source: flag, environment, .env or a NATS context. If an alias or a `_FILE` variable was set, its
    name follows: `environment (NOETL_SHARD_ID)`."""
    file: str = ""
    """Path of the file that the text was read from; "" for none."""


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    texts: Mapping[str, str]
    file: str = ""

    def find(self, line: SettingLine) -> GivenText | None:
        """Return the text that this source has for a setting, or None. The source may have the setting's variable, an
        alias, or for a secret the path of a file.

        Raises:
            SettingsError: the source has both a text and a file for the setting, or the file cannot be read.
        """
        given = next((self._given(line, name) for name in line.names if self._has(name)), None)
        names = [f"{name}{FILE_SUFFIX}" for name in line.names] if line.is_secret else []
        named = next((name for name in names if self._has(name)), None)
        if named is None:
            return given
        if given is not None:
            raise SettingsError(named, self.texts[named], f"set it or {line.variable}, not both ({self.name})")
        return GivenText(_content(named, self.texts[named]), f"{self.name} ({named})", self.texts[named].strip())

    def _has(self, name: str) -> bool:
        return name in self.texts and bool(self.texts[name].strip() or name in EMPTY_MEANS_OFF)

    def _given(self, line: SettingLine, name: str) -> GivenText:
        return GivenText(self.texts[name], self.name if name == line.variable else f"{self.name} ({name})", self.file)


def given_texts(
    lines: Iterable[SettingLine], environment: Mapping[str, str], flags: Mapping[str, str | None], dotenv: Path
) -> dict[str, GivenText]:
    """Return the text of each setting that a source sets, by variable. Variables such as NOETL_SECRET_<NAME>
    (`tools.py`) are included.

    Args:
        lines: declarations of all settings.
        environment: texts by variable.
        flags: texts of command-line flags by variable.
        dotenv: path of a `.env` file, which may be missing.

    Raises:
        SettingsError: a file cannot be read, a source has a text and a file for one setting, or a setting was removed.
    """
    from_file = _dotenv_texts(dotenv)
    explicit = {key: value for key, value in flags.items() if value is not None}
    sources = [
        _Source("flag", explicit),
        _Source(ENVIRONMENT, _add_port(environment)),
        _Source(".env", from_file, str(dotenv.absolute()) if from_file else ""),
    ]
    for source in sources:
        for name, instead in GONE.items():
            if name in source.texts:
                raise SettingsError(name, source.texts[name], f"it is no setting any more, so unset it: {instead}")
    all_lines = [*lines, *_family_lines(sources)]
    found = {line.variable: given for line in all_lines if (given := _first(line, sources)) is not None}
    if (context := found.get("NATS_CONTEXT")) is not None:
        name = context.text.strip()
        file, texts = context_texts(name, environment, {variable: given.text for variable, given in found.items()})
        found |= {variable: GivenText(text, f"NATS context {name}", file) for variable, text in texts.items()}
    return found


def unknown_names(lines: Iterable[SettingLine], environment: Mapping[str, str], dotenv: Path) -> dict[str, str | None]:
    """Return variables that have a prefix of our settings but are no settings, each with the most similar setting.

    If no setting is similar, the variable is returned with None, and only if its prefix is in `_OURS`: other programs
    use the other prefixes. An unknown variable may be mistyped, or belong to another worker or version.
    """
    known = {f"{name}{ending}" for line in lines for name in line.names for ending in ("", FILE_SUFFIX)}
    given = {*environment, *_dotenv_texts(dotenv)} - known
    unknown = sorted(name for name in given if name.startswith(_SHARED) and not _SERVICE_VARIABLE.fullmatch(name))
    if not unknown:
        return {}
    import difflib

    def nearest(name: str) -> str | None:
        first = _OURS if name.startswith(_OURS) else _SHARED
        settings = [one for line in lines for one in line.names if one.startswith(first)]
        alike = _LEAST_ALIKE if first is _OURS else _LEAST_ALIKE_IF_SHARED
        return next(iter(difflib.get_close_matches(name, settings, 1, alike)), None)

    found = {name: nearest(name) for name in unknown}
    return {name: meant for name, meant in found.items() if meant or name.startswith(_OURS)}


def advice_on(unknown: Mapping[str, str | None]) -> str:
    """Return advice for the user about environment variables that are no settings: which setting each may have meant.

    Args:
        unknown: most similar setting, or None, by variable.
    """
    meant = [f"{name} is not read: did you mean {nearest}?" for name, nearest in unknown.items() if nearest]
    rest = [name for name, nearest in unknown.items() if not nearest]
    known = [f"the worker does not read {', '.join(rest)}; `noetl-worker config` lists the settings"] if rest else []
    return " ".join([*meant, *known])


def _dotenv_texts(path: Path) -> dict[str, str]:
    try:
        return {key: value or "" for key, value in dotenv_values(path).items()} if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(".env", str(path), f"a file of text that can be read ({_reason(error)}), or none") from None


def _first(line: SettingLine, sources: Iterable[_Source]) -> GivenText | None:
    return next((given for source in sources if (given := source.find(line)) is not None), None)


def _family_lines(sources: Iterable[_Source]) -> Iterator[SettingLine]:
    """Yield a SettingLine for each variable whose name has a part that the user chose, such as NOETL_SECRET_<NAME>, if
    one of the sources (environment, files) sets the variable."""
    names = dict.fromkeys(name for source in sources for name in source.texts)
    for family in FAMILIES:
        for variable in dict.fromkeys(filter(None, map(family.match_variable, names))):
            yield family.line(variable)


def _content(variable: str, path: str) -> str:
    try:
        content = Path(path.strip()).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(variable, path, f"the path of a file that can be read ({_reason(error)})") from None
    if not content:
        raise SettingsError(variable, path, "the path of a file that is not empty")
    return content


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "the file is not UTF-8 text"


def _add_port(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Use Cloud Run's variable PORT as the port of WORKER_METRICS_BIND, if WORKER_METRICS_BIND is not set. Return the
    resulting environment.

    NoETL's own Rust worker does the same.
    """
    if "WORKER_METRICS_BIND" in environment or not environment.get("PORT"):
        return environment
    return {**environment, "WORKER_METRICS_BIND": f"0.0.0.0:{environment['PORT']}"}

"""The packages that a python step asks for, in `deps` or in a PEP 723 block of its code."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from noetl_worker.errors import ConfigurationError

_tomllib: Final = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_BLOCK: Final = re.compile(r"^# /// script$\s((?:^#(?:| .*)$\s)+)^# ///$", re.MULTILINE)
"""Regular expression for a PEP 723 block in code. Its group matches the block's content, still with the comment
signs."""
_LOGIN: Final = re.compile(r"(://)[^/@\s]+@")
_VERSION: Final = re.compile(r"3\.\d+(?:\.\d+)?")


def strip_login(text: str) -> str:
    """Return the text without the logins in its addresses, so that logs and errors can show the text."""
    return _LOGIN.sub(r"\1***@", text)


@dataclass(frozen=True, slots=True)
class WantedPackages:
    """The packages that a step asks for, and the Python version that the packages need."""

    requirements: tuple[str, ...]
    """Requirements (as in pip) in their normalised spelling, sorted."""
    python: str = ""
    """Version specifier of the interpreter; empty: any."""
    links: tuple[str, ...] = ()
    """Requirements with an address of their own (`name @ https://...`). Such packages do not come from the operator's
    index."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The requirements without the logins in their addresses, for logs and errors."""
        return tuple(map(strip_login, self.requirements))

    def is_for(self, version: str) -> bool:
        """Return True if the version specifier `self.python` allows an interpreter of this version."""
        return SpecifierSet(self.python).contains(version, prereleases=True)


def wanted_packages(deps: Mapping[str, Any], code: str) -> WantedPackages | None:
    """Return the packages of a step, or None if the step asks for no packages.

    Raises:
        ConfigurationError: a requirement does not parse, or a package is listed twice. Or `deps` has `packages`
            together with `venv_path` or a PEP 723 block in the code, or has `python` without `packages`.
    """
    block = _BLOCK.findall(code) if not deps.get("venv_path") else []
    given, python = deps.get("packages"), deps.get("python")
    if given is not None and deps.get("venv_path"):
        raise _wrong("'packages' and 'venv_path' name two environments; keep one of them", "deps.packages")
    if block and given is not None:
        raise _wrong("'packages' is given, and the code has a `# /// script` block too; keep one", "deps.packages")
    if given is None and python is not None:
        raise _wrong(
            "'python' works only with 'packages': give 'packages' too, or use the step's own field 'python'",
            "deps.python",
        )
    if block:
        return _from_block(block)
    return None if given is None else _checked(_listed(given), _specifier(python, "deps.python"), "deps.packages")


def _listed(given: Any) -> list[tuple[str, Any]]:
    """Return the requirements in `packages`. Each is paired with its path below `packages`, such as `[0]`, for error
    messages. `packages` is a list or an object of lists, which NoETL's own Python worker takes too."""
    lists = [(f".{name}", one) for name, one in given.items()] if isinstance(given, Mapping) else [("", given)]
    for name, one in lists:
        if not isinstance(one, list):
            text = f"'packages' must be a list of requirements, or an object of lists, not {type(one).__name__}"
            raise _wrong(text, f"deps.packages{name}")
    return [(f"{name}[{index}]", text) for name, one in lists for index, text in enumerate(one)]


def _from_block(blocks: list[str]) -> WantedPackages | None:
    if len(blocks) > 1:
        raise _wrong("the code has several `# /// script` blocks; keep one", "code")
    text = "".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0].splitlines(keepends=True))
    try:
        found = _tomllib.loads(text)
    except ValueError as error:
        raise _wrong(f"the text is not TOML: {error}", "code") from None
    given = found.get("dependencies", [])
    if not isinstance(given, list):
        raise _wrong("'dependencies' must be a list", "code")
    if not given:
        return None
    return _checked([("", one) for one in given], _specifier(found.get("requires-python"), "code"), "code")


def _checked(given: list[tuple[str, Any]], python: str, field: str) -> WantedPackages | None:
    requirements: dict[tuple[str, Marker | None], Requirement] = {}
    for end, text in given:
        place = field if field == "code" else f"{field}{end}"
        try:
            one = Requirement(text)
        except (InvalidRequirement, TypeError):
            raise _wrong(f"{_quoted(text)} is no requirement; write one as 'pandas==2.2.*'", place) from None
        one.name = canonicalize_name(one.name)
        if (one.name, one.marker) in requirements:
            raise _wrong(f"{one.name!r} is listed twice; keep one requirement", place)
        requirements[one.name, one.marker] = one
    if not requirements:
        return None
    links = tuple(sorted(str(one) for one in requirements.values() if one.url))
    return WantedPackages(tuple(sorted(map(str, requirements.values()))), python, links)


def _specifier(given: Any, field: str) -> str:
    """Return a Python version as a specifier: `==3.12.*` for "3.12". Raises ConfigurationError for anything else."""
    if given is None:
        return ""
    try:
        if isinstance(given, str):
            return str(SpecifierSet(f"=={given}.*" if _VERSION.fullmatch(given) else given))
    except InvalidSpecifier:
        pass
    raise _wrong(f"python {given!r} is no version; write it in quotes, as '3.12' or '>=3.11'", field)


def _quoted(given: Any) -> str:
    return repr(strip_login(given) if isinstance(given, str) else given)


def _wrong(text: str, field: str) -> ConfigurationError:
    return ConfigurationError(f"deps: {text}" if field != "code" else f"the `# /// script` block: {text}", field=field)

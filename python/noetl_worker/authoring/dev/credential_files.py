"""Credentials for a run of `noetl-worker dev`, read from files. No error text contains a value from these files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from noetl_worker.authoring.dev.orchestration.playbook import read_file_text
from noetl_worker.errors import PlaybookError
from noetl_worker.text.yaml_text import UNREADABLE, JsonLoader, error_position

BESIDE: Final = ("credentials.yaml", "credentials.yml", "credentials.json")
"""Names of credentials files. `dev` reads the first of these files that exists in the playbook's folder. Its content is
`{NAME: {type, data}, ...}`."""
_FORM: Final = "{type: postgres, data: {...}}, as POST /api/credentials takes it"


@dataclass(frozen=True, slots=True)
class LocalCredential:
    """A credential that `noetl-worker dev` reads from a file and gives to its control plane."""

    name: str
    type: str | None
    data: dict[str, Any] = field(repr=False)

    def body(self) -> dict[str, Any]:
        """Return the body for POST /api/credentials."""
        return {"name": self.name, "type": self.type, "data": self.data}


def local_credentials(playbook: Path, given: Sequence[str]) -> list[LocalCredential]:
    """Return the credentials from the file beside the playbook and from each `NAME=FILE`.

    If both have a credential of the same name, the credential from `NAME=FILE` is returned.

    Raises:
        PlaybookError: a file cannot be read or contains no credentials; the text names the file, and the line or key.
    """
    found = {credential.name: credential for credential in credentials_beside(playbook)}
    found |= {credential.name: credential for credential in map(given_credential, given)}
    return list(found.values())


def given_credential(text: str) -> LocalCredential:
    """Read a credential from the JSON or YAML file in `NAME=FILE`. Raises PlaybookError."""
    name, equals, path = text.partition("=")
    if not equals or not name.strip() or not path.strip():
        raise PlaybookError(f"--credential {text!r}: write NAME=FILE, for example pg=pg.json")
    file = Path(path.strip()).expanduser()
    return _credential(name.strip(), read_document(file), f"--credential {name.strip()}={file}")


def credentials_beside(playbook: Path) -> list[LocalCredential]:
    """Return the credentials in the file beside the playbook; [] without such a file. Raises PlaybookError."""
    for name in BESIDE:
        file = playbook.parent / name
        if file.is_file():
            document = read_document(file)
            if not isinstance(document, dict):
                raise PlaybookError(f"{file}: write a mapping of names to credentials, {{NAME: {_FORM}}}")
            return [_credential(str(key), value, f"{file}: {key}") for key, value in document.items()]
    return []


def read_document(file: Path, otherwise: str = "neither JSON nor YAML") -> object:
    """Return the value in a YAML or JSON file.

    Args:
        otherwise: text of the error for a file that does not parse.

    Raises:
        PlaybookError: the file cannot be read or parsed; the text quotes nothing from the file.
    """
    try:
        return yaml.load(read_file_text(file), JsonLoader)  # JSON is YAML
    except UNREADABLE as error:
        # The parser's own text would quote the file.
        raise PlaybookError(f"{file}: {otherwise}{error_position(error)}") from None


def _credential(name: str, document: object, source: str) -> LocalCredential:
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        keys = f"; it has the keys {', '.join(sorted(map(str, document)))}" if isinstance(document, dict) else ""
        raise PlaybookError(f"{source}: write a credential as {_FORM}{keys}")
    kind = document.get("type")
    if kind is not None and not isinstance(kind, str):
        raise PlaybookError(f"{source}: write `type` as a word such as postgres, bearer or nats")
    return LocalCredential(name, kind, {str(key): value for key, value in document["data"].items()})

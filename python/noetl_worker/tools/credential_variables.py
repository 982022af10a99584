"""The `auth` of a `python` step: credentials as the environment variables that client libraries read.

The step's code also finds each credential in its global variable `auth`, as in `{"gcs": {"type": ..., ...}}`. The key
is the name that the credential has in the playbook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError, DocumentError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps, loads
from noetl_worker.text.secrets.auth_alias import find_alias
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.credential import DATABASE_FIELDS, first_given
from noetl_worker.tools.policy import ConfigPlace

_ONE_OBJECT: Final = frozenset({"source", "key", "credential", "type", "service", "inject", "fields"})
_AWS: Final = {
    "AWS_ACCESS_KEY_ID": ("access_key_id", "aws_access_key_id", "key_id", "access_key"),
    "AWS_SECRET_ACCESS_KEY": ("secret_access_key", "aws_secret_access_key", "secret_key", "secret"),
    "AWS_SESSION_TOKEN": ("session_token", "aws_session_token"),
    "AWS_DEFAULT_REGION": ("region", "aws_default_region"),
    "AWS_ENDPOINT_URL": ("endpoint", "endpoint_url"),
}
_AZURE: Final = {
    "AZURE_STORAGE_CONNECTION_STRING": ("connection_string",),
    "AZURE_STORAGE_ACCOUNT": ("account_name", "account"),
    "AZURE_STORAGE_KEY": ("account_key",),
    "AZURE_TENANT_ID": ("tenant_id",),
    "AZURE_CLIENT_ID": ("client_id",),
    "AZURE_CLIENT_SECRET": ("client_secret",),
}
_POSTGRES: Final = {f"PG{part.upper()}": names for part, names in DATABASE_FIELDS.items()}
_TABLES: Final = (
    (("hmac", "s3", "aws"), _AWS),
    (("azure",), _AZURE),
    (("postgres",), _POSTGRES),
)
_GOOGLE: Final = ("gcs", "gcp", "google", "service_account", "authorized_user")


@dataclass(slots=True)
class Granted:
    """The environment variables, secret files and credentials that the code of one `python` step may use."""

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Environment variable -> content of the file whose path the variable will hold."""
    data: dict[str, JsonValue] = field(default_factory=dict)

    def write_files(self, directory: str) -> None:
        """Write `files` into `directory`, readable only by the worker's user, and set their variables in `env` to the
        paths. The directory must exist until the step's code has ended."""
        for number, (variable, content) in enumerate(self.files.items()):
            path = Path(directory, f"google-{number}.json")
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(content, encoding="utf-8")
            self.env[variable] = str(path)
        self.files.clear()


async def granted(auth: str | Mapping[str, Any] | None, context: ToolContext, *, by_descriptor: bool) -> Granted:
    """Fetch the credentials that `auth` names. Return the variables, files and credentials for a `python` step's code.

    Args:
        auth: an alias; an object {"key": alias, "service": "gcs"}; or a map of names to aliases or such objects.
        by_descriptor: True to give a PostgreSQL password as a file (PGPASSFILE), not as the variable PGPASSWORD.

    Raises:
        CredentialError: an alias that cannot be resolved.
        ConfigurationError: an entry without an alias or values.
    """
    grant = Granted()
    for name, entry in _entries(auth).items():
        alias, service = _alias(name, entry)
        own = {key: value for key, value in entry.items() if key != "service"}
        data = dict(await context.secrets.credential(alias)) if alias else own
        grant.data[name] = data
        words = (service or str(data.get("type") or "")).lower()
        table = next((table for kinds, table in _TABLES if any(kind in words for kind in kinds)), None)
        if table is not None:
            grant.env.update(_from_table(table, data))
        elif any(kind in words for kind in _GOOGLE):
            _grant_google(grant, data, name)
    if by_descriptor and "PGPASSWORD" in grant.env:
        grant.files["PGPASSFILE"] = _password_file(grant.env.pop("PGPASSWORD"))
    return grant


def check_auth(auth: str | Mapping[str, Any] | None) -> None:
    """Raise ConfigurationError if an entry of `auth` has neither an alias nor values. Fetch no credential."""
    for name, entry in _entries(auth).items():
        _alias(name, entry)


def _entries(auth: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if not auth:
        return {}
    if isinstance(auth, str):
        return {auth: {"credential": auth}}
    if not _ONE_OBJECT.isdisjoint(auth):
        name = next(
            (auth[word] for word in ("service", "key", "credential", "type", "source") if auth.get(word)), "auth"
        )
        return {str(name): auth}
    return {name: {"credential": alias} if isinstance(alias, str) else alias for name, alias in auth.items()}


def _alias(name: str, entry: Any) -> tuple[str | None, str]:
    """Return the alias of the credential to fetch, and the name of the credential's service (such as `postgres`). The
    alias is None if the entry has the credential's values itself. The name is empty if the entry has none.

    `key` is an alias even if `source: credential` is missing, because NoETL's example playbooks omit `source`. So an
    entry that has the values itself cannot have a value named `key`.
    """
    where = ConfigPlace("python", f"auth: {name!r}", f"auth.{name}")
    if not isinstance(entry, Mapping):
        raise where.wrong(f" must be an alias or an object, not {type(entry).__name__}")
    alias, source = find_alias(entry) or entry.get("key"), entry.get("source")
    if isinstance(alias, (Mapping, list)) or (not alias and ("key" in entry or "credential" in entry)):
        raise where.wrong(": 'key' must be the alias of a credential")
    if source not in (None, "credential", "inline"):
        raise where.wrong(f": source {source!r} is not supported; use credential", "source")
    if alias is None and source == "credential":
        raise where.wrong(" needs 'key': the alias of a credential")
    service = entry.get("service") or entry.get("tool") or entry.get("type") or ""
    return None if alias is None else str(alias), str(service)


def _password_file(password: str) -> str:
    """Return the line of a PGPASSFILE with this password, valid for any server. The server itself is in other variables
    (PGHOST)."""
    if "\n" in password or "\r" in password:
        raise ConfigurationError(
            "python: auth: the password has a line break: a PGPASSFILE cannot hold it; set another password"
        )
    return "*:*:*:*:" + password.replace("\\", "\\\\").replace(":", "\\:") + "\n"


def aws_variables(data: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the fields of an AWS credential under the names of their environment variables."""
    return _from_table(_AWS, data)


def _from_table(table: Mapping[str, tuple[str, ...]], data: Mapping[str, JsonValue]) -> dict[str, str]:
    found = {variable: first_given(data, names) for variable, names in table.items()}
    return {variable: str(value) for variable, value in found.items() if value is not None}


def _grant_google(granted: Granted, data: Mapping[str, JsonValue], name: str) -> None:
    account: Any = data.get("service_account_json") or data
    if isinstance(account, str):
        try:
            account = loads(account)
        except DocumentError as error:
            raise ConfigurationError(f"python: auth: {name!r}: 'service_account_json' is not JSON") from error
    granted.files["GOOGLE_APPLICATION_CREDENTIALS"] = dumps(account).decode()
    project = account.get("project_id") if isinstance(account, Mapping) else None
    if project:
        granted.env["GOOGLE_CLOUD_PROJECT"] = str(project)

"""Credentials and keychain entries (protocol/executions.md#credentials). A development plane does not encrypt them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Final

from noetl_worker.authoring.dev.database import Ids, moment
from noetl_worker.authoring.dev.orchestration.location import Location, RefusedPart
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer, detail, required, rust_error
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.models.wire import Dialect, JsonValue

DEFAULT_TTL_S: Final = 3600
PLAYBOOK_TTL_S: Final = 86_400
_REFERENCES: Final = ("credential", "credential_ref", "google_oauth", "google_service_account", "google")
_OF_A_TOKEN: Final = (
    "token_data", "credential_type", "cache_type", "scope_type", "expires_at", "ttl_seconds", "accessed_at",
    "access_count",
)  # fmt: skip


class Credentials:
    """The named credentials of one plane."""

    def __init__(self, settings: PlaneSettings, ids: Ids) -> None:
        self._ids = ids
        self._is_rust = settings.dialect is Dialect.RUST
        self._by_name: dict[str, dict[str, JsonValue]] = {}

    def write(self, body: JsonValue) -> HttpAnswer:
        name, now = required("name", body)["name"], time.time()
        before = self._by_name.get(name, {"id": str(self._ids.next()), "created_at": now})
        row = {
            "id": before["id"],
            "name": name,
            "meta": body.get("meta"),
            "tags": body.get("tags"),
            "description": body.get("description"),
            "created_at": before["created_at"],
            "updated_at": now,
            "data": body.get("data"),
            "type": body.get("type"),
        }
        self._by_name[name] = row
        return answer(self._shown(row, with_data=False))

    def read(self, name: str, *, with_data: bool, entry: Mapping[str, JsonValue] | None = None) -> HttpAnswer:
        """Return the HTTP answer to a request for the credential with this name or id.

        Args:
            with_data: include the secret data.
            entry: data of a keychain entry of this name. The Rust plane answers with this data if no credential has the
                name.
        """
        for row in self._by_name.values():
            if name in (row["name"], row["id"]):
                return answer(self._shown(row, with_data=with_data))
        if self._is_rust and entry is not None:
            now = moment(time.time(), utc="Z")
            known = {"id": "0", "name": name, "type": "keychain", "description": "resolved from keychain provider"}
            return answer({**known, "data": dict(entry), "created_at": now, "updated_at": now})
        if self._is_rust:
            return rust_error(404, f"Credential '{name}' not found")
        return detail(404, "Credential not found")

    def data(self, name: str, entry: str, index: int) -> JsonValue:
        """Return the data of the credential that a keychain entry names.

        Args:
            name: name or id of the credential.
            entry: name of the keychain entry, for the error.
            index: index of the entry in the playbook's `keychain`, for the error.

        Raises:
            RefusedPart: no credential has this name or id.
        """
        for row in self._by_name.values():
            if name in (row["name"], row["id"]):
                return row["data"]
        hint = f"give --credential {name}=FILE, or write credentials.yaml beside the playbook"
        reason = f"keychain: {entry}: no credential is named '{name}': {hint}"
        raise RefusedPart(reason, Location(path=("keychain", index)))

    def _shown(self, row: Mapping[str, JsonValue], *, with_data: bool) -> Mapping[str, JsonValue]:
        utc = "Z" if self._is_rust else "+00:00"
        times = {key: moment(row[key], utc=utc) for key in ("created_at", "updated_at")}
        if not self._is_rust:
            return {**row, **times, "data": row["data"] if with_data else None}
        data = {"data": row["data"]} if with_data else {}
        return {"id": row["id"], "name": row["name"], "type": row["type"], "tags": row["tags"] or [], **data, **times}


class Keychain:
    """The keychain entries of one plane, by catalog entry, name and scope.

    A read is always answered with 200. The field `status` of the answer says whether the entry exists.
    """

    def __init__(self, settings: PlaneSettings, credentials: Credentials) -> None:
        self._is_rust = settings.dialect is Dialect.RUST
        self._credentials = credentials
        self._by_key: dict[str, dict[str, JsonValue]] = {}

    def write(self, catalog_id: int, name: str, body: JsonValue) -> HttpAnswer:
        token = required("token_data", body)["token_data"]
        scope = body.get("scope_type") or "global"
        key = _key(catalog_id, name, scope, body.get("execution_id"))
        ttl_s = body.get("ttl_seconds") or DEFAULT_TTL_S
        expires_at = time.time() + ttl_s
        self._by_key[key] = {
            "token_data": token,
            "credential_type": body.get("credential_type"),
            "cache_type": body.get("cache_type", "token"),
            "scope_type": scope,
            "expires_at": expires_at,
            "access_count": 0,
        }
        return answer(
            {
                "status": "success",
                "message": f"Keychain entry cached successfully with {ttl_s}s TTL",
                "keychain_name": name,
                "catalog_id": catalog_id,
                "cache_key": key,
                "expires_at": moment(expires_at, utc="Z"),
                "ttl_seconds": ttl_s,
                "auto_renew": bool(body.get("auto_renew")),
            }
        )

    def resolve(self, catalog_id: int, entry: Mapping[str, JsonValue], index: int) -> Collection[str]:
        """Store an entry of a playbook's `keychain` at the start of an execution, as package noetl 4.0.0 does.

        Args:
            index: index of the entry in the playbook's `keychain`.

        Returns:
            The names of the entry's fields. Empty if the entry's kind needs another service; then nothing is stored.

        Raises:
            RefusedPart: the entry names a credential that does not exist.
        """
        kind, name = str(entry.get("kind") or entry.get("type")), str(entry.get("name"))
        token: JsonValue = None
        if kind == "static":
            token = entry.get("map")
        elif kind == "bearer":
            token = {"access_token": entry.get("token"), "token_type": "Bearer"} if entry.get("token") else None
        elif kind in _REFERENCES:
            token = self._credentials.data(str(entry.get("ref") or entry.get("credential") or name), name, index)
        if not isinstance(token, dict):
            return ()
        body = {
            "token_data": token,
            "credential_type": kind,
            "cache_type": "token" if kind == "bearer" else "secret",
            "ttl_seconds": PLAYBOOK_TTL_S,
        }
        self.write(catalog_id, name, body)
        return tuple(token)

    def resolved(self, name: str) -> Mapping[str, JsonValue] | None:
        """Return the data of the newest keychain entry of this name, or None.

        Entries of kind `static` are left out, as on the Rust plane (protocol/executions.md#credentials).
        """
        rows = [row for key, row in self._by_key.items() if key.startswith(f"{name}:")]
        entries = [row["token_data"] for row in rows if row.get("credential_type") != "static"]
        return entries[-1] if entries and isinstance(entries[-1], dict) else None

    def read(self, catalog_id: int, name: str, scope: str, execution_id: str | None) -> HttpAnswer:
        key, now = _key(catalog_id, name, scope, execution_id), time.time()
        row = self._by_key.get(key, {"expires_at": 0})
        found = dict.fromkeys(_OF_A_TOKEN)
        is_there = row["expires_at"] > now
        if is_there:
            row["access_count"] += 1
            times = {"expires_at": moment(row["expires_at"], utc="Z"), "accessed_at": moment(now, utc="Z")}
            found.update(row, **times, ttl_seconds=row["expires_at"] - now)
        elif self._is_rust:
            return answer({"status": "not_found"})
        return answer(
            {
                "status": "success" if is_there else "not_found",
                "keychain_name": name,
                "catalog_id": catalog_id,
                "cache_key": key,
                **found,
                "auto_renew": False,
                "renew_config": None,
                "expired": False,
            }
        )


def _key(catalog_id: int, name: str, scope: str, execution_id: JsonValue) -> str:
    tail = execution_id if scope in ("local", "shared") and execution_id is not None else "global"
    return f"{name}:{catalog_id}:{tail}"

"""The catalog: registered playbooks by path and version (recorded: catalog-*)."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from noetl_worker.authoring.dev.database import Ids, moment
from noetl_worker.authoring.dev.orchestration.playbook import Playbook, parse_yaml, read_playbook
from noetl_worker.authoring.dev.registration.python_model import refused_by_python
from noetl_worker.authoring.dev.registration.shapes import UNPROCESSABLE, Refusal, value_at
from noetl_worker.authoring.dev.server.answers import HttpAnswer, answer, detail, required, rust_error
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue, fields_of

EXECUTABLE_KINDS: Final = ("playbook", "agent")
_MOST_SAID: Final = 3


class CatalogEntry(NamedTuple):
    catalog_id: int
    path: str
    version: int
    kind: str
    content: str
    created_at: float


class Catalog:
    """The registered playbooks of one plane. Registration refuses a playbook only if the real plane would refuse the
    playbook.
    """

    def __init__(self, settings: PlaneSettings, ids: Ids) -> None:
        self._ids = ids
        self._is_rust = settings.dialect is Dialect.RUST
        self._extra_kinds = frozenset(settings.extra_kinds)
        self._entries: list[CatalogEntry] = []
        self._playbooks: dict[int, Playbook] = {}

    def register(self, body: JsonValue) -> HttpAnswer:
        content = _decoded(str(required("content", body)["content"]))
        try:
            document = parse_yaml(content)
        except PlaybookError as error:
            if self._is_rust:
                return rust_error(422, f"Invalid YAML: {error}")
            return detail(500, f"Error registering resource: {error}.")
        playbook, reason = Playbook.from_document(fields_of(document)), self._refusal(fields_of(document))
        if reason is not None:
            if self._is_rust:
                return rust_error(422, reason)
            return detail(422, f"register_resource: '{playbook.path}' is not a valid playbook: {reason}")
        entry = self.add(playbook.path, content)
        message = f"Resource '{entry.path}' version '{entry.version}' registered."
        return answer(
            {
                "status": "success",
                "message": message,
                "path": entry.path,
                "version": entry.version,
                "catalog_id": str(entry.catalog_id),
                "kind": entry.kind,
            }
        )

    def _refusal(self, document: Mapping[str, JsonValue]) -> str | None:
        """Return why the real plane would not register a playbook, or None.

        At registration the Rust plane checks only that `metadata` and `workflow` exist and `workflow` is a list.
        """
        if self._is_rust:
            for name in ("metadata", "workflow"):
                if name not in document:
                    return f"{name}: Field required"
            return None if isinstance(document["workflow"], list) else "workflow: Input should be a valid list"
        found = [one for one in refused_by_python(document) if one.status == UNPROCESSABLE]
        said = [_placed(one) for one in found if not self._is_of_own_kind(one, document)]
        more = f" (+{len(said) - _MOST_SAID} more)" if len(said) > _MOST_SAID else ""
        return "; ".join(said[:_MOST_SAID]) + more if said else None

    def _is_of_own_kind(self, refusal: Refusal, document: Mapping[str, JsonValue]) -> bool:
        """Return whether the refusal is about a tool kind that `PlaneSettings.extra_kinds` allows."""
        if refusal.path[-1:] != ("kind",):
            return False
        return fields_of(value_at(document, refusal.path[:-1])).get("kind") in self._extra_kinds

    def add(self, path: str, content: str) -> CatalogEntry:
        """Store `content` as the next version of `path`, without a check. Return the new entry."""
        version = 1 + sum(entry.path == path for entry in self._entries)
        entry = CatalogEntry(self._ids.next(), path, version, "playbook", content, time.time())
        self.restore(entry)
        return entry

    def restore(self, entry: CatalogEntry) -> None:
        """Add a catalog entry with the id and version that it had on the plane of a stored run."""
        self._entries.append(entry)

    def find(
        self, *, path: str | None = None, version: JsonValue = None, catalog_id: int | None = None
    ) -> CatalogEntry | None:
        """Return an entry, or None if there is no such entry.

        Args:
            path: return an entry with this path.
            version: version of the entry with `path`; None: the newest version.
            catalog_id: return the entry with this id, and ignore the other arguments.
        """
        newest_first = reversed(self._entries)
        if catalog_id is not None:
            return next((entry for entry in newest_first if entry.catalog_id == catalog_id), None)
        of_path = (entry for entry in newest_first if entry.path == path)
        if version in (None, "latest"):
            return next(of_path, None)
        return next((entry for entry in of_path if str(entry.version) == str(version)), None)

    def playbook(self, entry: CatalogEntry) -> Playbook:
        found = self._playbooks.get(entry.catalog_id)
        if found is None:
            found = self._playbooks[entry.catalog_id] = read_playbook(entry.content)
        return found

    # ── routes ──────────────────────────────────────────────────────────────────────────────────

    def list_route(self) -> HttpAnswer:
        return answer({"entries": [self._shown(entry) for entry in reversed(self._entries)]})

    def resource_route(self, body: JsonValue) -> HttpAnswer:
        given = fields_of(body)
        wanted = str(given.get("catalog_id") or "")
        entry = self.find(
            path=given.get("path"), version=given.get("version"), catalog_id=int(wanted) if wanted.isdecimal() else None
        )
        if entry is None:
            text = "Catalog entry not found"
            return rust_error(404, text) if self._is_rust else detail(404, text)
        return answer(self._shown(entry))

    def _shown(self, entry: CatalogEntry) -> dict[str, JsonValue]:
        registered_at = moment(entry.created_at)
        return {
            "catalog_id": str(entry.catalog_id),
            "path": entry.path,
            "version": entry.version,
            "kind": entry.kind,
            "content": entry.content,
            **self._parsed(entry),
            "meta": {
                "agent": False,
                "terminal": {},
                "capabilities": [],
                "registered_at": registered_at,
                "terminal_scopes": [],
                "terminal_visible": False,
            },
            "created_at": moment(entry.created_at, utc=""),
        }

    def _parsed(self, entry: CatalogEntry) -> dict[str, JsonValue]:
        """Return the fields of a catalog answer that contain the parsed playbook.

        The Python plane gives the whole playbook. The Rust plane gives only the steps and the workload (seen on a real
        Rust plane by tests/compat/real_plane.py).
        """
        document = parse_yaml(entry.content)
        if not self._is_rust or not isinstance(document, dict):
            return {"layout": None, "payload": document}
        return {"layout": document.get("workflow"), "payload": document.get("workload")}


def _placed(refusal: Refusal) -> str:
    """Return a refusal's text with the path in front: `workflow.0.step: Field required` (recorded:
    catalog-register-empty-content).
    """
    place = ".".join(map(str, (*refusal.path, *filter(None, [refusal.missing]))))
    return f"{place}: {refusal.text}" if place else refusal.text


def _decoded(content: str) -> str:
    """Return a posted playbook as text. Workers post text or base64 (recorded: catalog-register-base64)."""
    if ":" in content:
        return content
    try:
        return base64.b64decode(content, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return content

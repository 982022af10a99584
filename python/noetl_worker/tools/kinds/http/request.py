"""Building the request of an `http` step from its fields: address, parameters, headers and the body."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

import httpx

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.file_roots import opened
from noetl_worker.tools.http.auth import Authorization
from noetl_worker.tools.http.client import HEADERS, shown_text
from noetl_worker.tools.kinds.http.http_fields import HttpFields
from noetl_worker.tools.payload import text_or_json

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_FORM: Final = "application/x-www-form-urlencoded"
_AsField: TypeAlias = Callable[[JsonValue], "str | list[str]"]


class FileParts(NamedTuple):
    """Opens the files of a multipart body. Closing `stack` closes the files."""

    stack: ExitStack
    settings: ToolSettings

    def opened(self, name: str, path: Path) -> BinaryIO:
        """Open the file that the multipart field `name` sends. Raises ConfigurationError if playbooks are not allowed
        to read the file."""
        return self.stack.enter_context(opened(f"http: files: {name!r}", str(path), path, self.settings))


def parse_method(text: str) -> str:
    """Return the method in upper case. Raises ConfigurationError for a method that is not in METHODS.

    differs-from-upstream: lower case is allowed; the Rust worker takes only upper case.
    """
    method = text.strip().upper()
    if method not in METHODS:
        raise ConfigurationError(f"method {text!r} is none of {', '.join(METHODS)}", field="method", tool="http")
    return method


def check_request(config: HttpFields) -> None:
    """Check `method`, `files`, `body_b64` and `data` before the request is built, so that a wrong config fails early.

    Raises:
        ConfigurationError: one of the four fields is wrong.
    """
    parse_method(config.method)
    for name, parts in (config.files or {}).items():
        for value in parts if isinstance(parts, list) else [parts]:
            part = _checked_part(name, value)
            if "content_b64" in part:
                _decoded(f"files.{name}.content_b64", part["content_b64"])
    if config.body_b64 is not None:
        _decoded("body_b64", config.body_b64)
    if _is_split(config.data) and not isinstance(config.data.get("query") or {}, Mapping):
        raise ConfigurationError(
            f"'data.query' must be an object, not {type(config.data['query']).__name__}",
            field="data.query",
            tool="http",
        )


def build(
    config: HttpFields,
    headers: Mapping[str, JsonValue],
    authorization: Authorization,
    files: FileParts,
    *,
    lists_are_json: bool,
) -> httpx.Request:
    """Return the request of one exchange. Call this in a thread if `config.files` is set, because opening a file may
    block.

    Args:
        headers: `config.headers`, rendered.
        files: opens the files of a multipart body; the caller closes them with `files.stack`.
        lists_are_json: True to send a list in `params` or `form` as one text, False to repeat its field.

    Raises:
        ConfigurationError: an address, a header, a parameter or a file cannot be used.
    """
    method = parse_method(config.method)
    texts = {name: text_or_json(value) for name, value in headers.items() if value is not None}
    texts.update(authorization.headers)
    as_field = text_or_json if lists_are_json else _as_param
    query, body = _query_and_body(config, method, _content_type(texts), files, as_field)
    if "files" in body:  # httpx writes the boundary
        texts = {name: value for name, value in texts.items() if name.lower() != "content-type"}
    if body.pop("is_json", False) and not _content_type(texts):
        texts["Content-Type"] = "application/json"
    given_names = {name.lower() for name in texts}
    sent = [*((name, value) for name, value in HEADERS.items() if name.lower() not in given_names), *texts.items()]
    timeouts = {"connect": config.connect_timeout, "read": config.read_timeout, "write": None, "pool": None}
    try:
        url = config.address
        given = {**query, **config.params, **authorization.params}
        params = _fields(given, as_field)
        if params:
            url = url.copy_with(params=url.params.merge(params))
        if not body.keys() - {"content"}:
            before, after, stream = _own_headers_and_stream(method, url, given_names, body.get("content", b""))
            sent, body = [*before, *sent, *after], {"stream": stream}
        request = httpx.Request(method, url, headers=sent, extensions={"timeout": timeouts}, **body)
    except (httpx.InvalidURL, TypeError, ValueError) as error:  # UnicodeError too: a header that is not ASCII
        text = f"the request to {shown_text(config.url)!r} cannot be built: {error}"
        raise ConfigurationError(text, field="url", tool="http") from error
    request.headers.encoding = "ascii"  # httpx would detect this slowly; a header that is not ASCII was refused above
    if "files" in body:
        request.stream = _OffLoop(request.stream)
    return request


def _own_headers_and_stream(
    method: str, url: httpx.URL, given: set[str], content: bytes
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], httpx.ByteStream]:
    """Return the worker's own headers of a request, as two lists, and the body as a stream. The first list is sent
    before the step's headers, the second list after the step's headers.

    The worker's own headers are `Host` and `Content-Length`, unless the step gives these. httpx would add the same
    headers, but more slowly: its four passes over all headers take half the time of building a request.
    """
    before = [] if "host" in given else [("Host", url.netloc.decode("ascii"))]
    after = []
    if content and "content-length" not in given:
        after.append(("Content-Length", str(len(content))))
    elif method in _WITH_BODY and given.isdisjoint(("content-length", "transfer-encoding")):
        before.append(("Content-Length", "0"))
    return before, after, httpx.ByteStream(content)


class _OffLoop(httpx.AsyncByteStream):
    """A multipart body that reads its files in a thread. httpx would read the files on the event loop and block all
    other commands."""

    def __init__(self, body: Any) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._body)
        while (piece := await finished_off_loop(partial(next, pieces, None))) is not None:
            yield piece


def _content_type(headers: Mapping[str, str]) -> str:
    return next((value for name, value in headers.items() if name.lower() == "content-type"), "")


def _query_and_body(
    config: HttpFields, method: str, content_type: str, files: FileParts, as_field: _AsField
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return the query parameters (besides those in `params`), and httpx's keyword arguments for the body. Both come
    from the first given field of `json`, `files`, `form`, `body_b64`, `body`, `payload` and `data`.

    Only `data` may give query parameters. An object with only the keys `query` and `body` gives parameters and body.
    Any other object in `data` gives the parameters of a GET, HEAD or OPTIONS, and the body of another method.
    """
    if config.json is not None:
        return {}, {"content": dumps(config.json), "is_json": True}
    if config.files is not None or (config.form is not None and content_type.startswith("multipart/form-data")):
        return {}, _multipart(config.form or {}, config.files or {}, files)
    if config.form is not None:
        return {}, {"data": _fields(config.form, as_field)}
    if config.body_b64 is not None:
        return {}, {"content": _decoded("body_b64", config.body_b64)}
    for value in (config.body, config.payload):
        if value is not None:
            return {}, _content(value, content_type)
    data = config.data
    if _is_split(data):
        query, body = data.get("query"), data.get("body")
        return dict(query or {}), {} if body is None else _content(body, content_type)
    if isinstance(data, Mapping) and method in _BODILESS:
        return data, {}
    return {}, {} if data is None else _content(data, content_type)


def _is_split(data: Any) -> bool:
    return isinstance(data, Mapping) and bool(data) and set(data) <= {"query", "body"}


def _content(value: JsonValue, content_type: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"content": value.encode("utf-8", "replace")}
    if isinstance(value, Mapping) and content_type.startswith(_FORM):
        return {"data": _fields(value, _as_param)}
    return {"content": dumps(value), "is_json": True}


def _fields(given: Mapping[str, Any], as_field: _AsField) -> dict[str, str | list[str]]:
    return {name: as_field(value) for name, value in given.items() if value is not None}


def _multipart(form: Mapping[str, Any], parts: Mapping[str, Any], files: FileParts) -> dict[str, Any]:
    sent: list[tuple[str, Any]] = []
    for name, value in form.items():
        if value is not None:
            values = _as_param(value)
            sent += [(name, (None, text.encode())) for text in ([values] if isinstance(values, str) else values)]
    for name, part in parts.items():
        for item in part if isinstance(part, list) else [part]:
            sent.append((name, _part(name, item, files)))
    return {"files": sent}


def _part(name: str, part: Any, files: FileParts) -> tuple[Any, ...]:
    """Return one file of a multipart body as httpx expects a file: (file name, content) or (file name, content, content
    type)."""
    part = _checked_part(name, part)
    content: Any
    file_name = str(part.get("filename") or name)
    if "path" in part:
        path = Path(str(part["path"]))
        file_name = str(part.get("filename") or path.name)
        content = files.opened(name, path)
    elif "content_b64" in part:
        content = _decoded(f"files.{name}.content_b64", part["content_b64"])
    else:
        content = text_or_json(part["content"]).encode()
    return (file_name, content) if part.get("content_type") is None else (file_name, content, str(part["content_type"]))


def _checked_part(name: str, part: Any) -> Mapping[str, Any]:
    """Return one file of a multipart body as an object. A text `a.csv` becomes {"path": "a.csv"}, a path on the
    worker."""
    if isinstance(part, str):
        part = {"path": part}
    if not isinstance(part, Mapping) or len({"path", "content", "content_b64"} & set(part)) != 1:
        raise ConfigurationError(
            f"files: {name!r} needs exactly one of 'path', 'content', 'content_b64'", field=f"files.{name}", tool="http"
        )
    kind = str(part.get("content_type") or "")
    if not kind.isprintable() or not kind.isascii():  # this header of the part is written unescaped
        raise ConfigurationError(
            f"files: {name!r}: content_type {kind!r} must be printable ASCII, like text/csv",
            field=f"files.{name}.content_type",
            tool="http",
        )
    return part


def _decoded(field: str, text: Any) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except ValueError as error:
        raise ConfigurationError(f"'{field}' is not base64: {error}", field=field, tool="http") from error


def _as_param(value: JsonValue) -> str | list[str]:
    """Return a query or form parameter as text. A list becomes a list of texts, so that httpx repeats the parameter
    (`ids=1&ids=2`)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [text_or_json(item) for item in value]
    return text_or_json(value)

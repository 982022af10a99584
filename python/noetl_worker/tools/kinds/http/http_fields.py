"""Config fields of the tool kind `http`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from noetl_worker.tools.http.client import ClientOptions

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpFields:
    """Config fields of an `http` step: the request to send. `HttpConfig` checks the values."""

    url: str
    """The address, with http:// or https://. A query in the address is sent too; a parameter in `params` replaces the
    parameter of the same name."""
    method: str = "GET"
    """GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS, in upper or lower case."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Header -> value. Numbers and booleans are sent as text; a header with the value null is left out.
    `{{ token(alias) }}` in a value is the bearer token of the credential `alias`. On the Rust plane `token` works only
    in a list of tasks."""
    params: dict[str, Any] = field(default_factory=dict)
    """Query parameters. An object is sent as JSON text; a parameter with the value null is left out. A list is sent as
    JSON text on the Rust plane, and as a repeated parameter on the Python plane. Lists in `form` are sent in the same
    way."""
    json: Any = None
    """Body: any value, as JSON."""
    form: dict[str, Any] | None = None
    """Body: a URL-encoded form. With `files`, or with a Content-Type of multipart/form-data, the form's fields are sent
    in a multipart body."""
    files: dict[str, Any] | None = None
    """Body: multipart, as {field: file}. A file is a path on the worker, or {path | content | content_b64, filename,
    content_type}. A list sends several files under one field. The worker reads the files from disk while sending."""
    body_b64: str | None = None
    """Body: bytes, in base64."""
    body: Any = None
    """Body: text is sent unchanged, any other value as JSON. An object is sent as a form if Content-Type is
    application/x-www-form-urlencoded."""
    payload: Any = None
    """Body: another name of `body`."""
    data: Any = None
    """Query and body, as {"query": ..., "body": ...}. Any other value is the body; in a GET, HEAD or OPTIONS request an
    object is the query."""
    auth: str | dict[str, Any] | None = None
    """Credential of the request: an alias, or an object with `type` and the values of this type. Types: bearer, basic,
    api_key, header, headers, oauth2_client_credentials, gcp_adc, service_account. `credential: alias` in the object
    names a stored credential. `source: secret` with `key` names one of the worker's own secrets."""
    timeout: float | None = None
    """Maximum seconds of the call, with all retries and pages. Absent: the command's remaining time."""
    attempt_timeout: float | None = None
    """Maximum seconds for one request and its answer, until the answer's body is complete. Absent: the step's
    `timeout`, or 60 without a `timeout`."""
    connect_timeout: float | None = None
    """Maximum seconds until the connection is established. Absent: only `attempt_timeout` applies."""
    read_timeout: float | None = None
    """Maximum seconds between two received parts of the answer. Absent: only `attempt_timeout` applies."""
    follow_redirects: bool = True
    """True to follow up to 10 redirects. Credentials are not sent on to another host."""
    verify: bool = True
    """True to check the server's TLS certificate. With False the worker accepts any certificate."""
    ca_file: str | None = None
    """Path of the certificate authorities to trust (PEM); absent: the public authorities."""
    client_cert: str | None = None
    """Path of a client certificate (PEM). The file also contains the private key, unless `client_key` names a file."""
    client_key: str | None = None
    """Path of the client certificate's key (PEM)."""
    proxy: str | None = None
    """Address of an HTTP proxy; absent: HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the worker."""
    response_type: Literal["json", "text", "binary"] = "json"
    """json: the parsed answer, or the answer as text if the answer is not JSON. text: the answer decoded with its
    declared charset. An unknown charset is read as UTF-8, and `notes` says so. binary: {"base64", "size"}."""
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """Maximum bytes of the answer, or of all pages together; 8 MiB by default, at most 256 MiB. A longer answer is cut,
    and `truncated` is true."""
    retry: Any = None
    """Retries and pages: true, a maximum number of attempts, an object such as `{max_attempts: 4, retry_on: [timeout,
    5xx]}`, or a list of rules. Absent: no retries and one page."""
    address: httpx.URL = field(init=False, repr=False, compare=False)
    """The parsed `url`. Every exchange uses this object, because parsing costs a tenth of the time of a request."""
    options: ClientOptions = field(init=False, repr=False, compare=False)
    """TLS and proxy options, made from `verify`, `ca_file`, `client_cert`, `client_key` and `proxy`."""

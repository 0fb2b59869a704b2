"""Runs `http` actions: one request, its answer bounded and streamed."""

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from tandem.adapters.local.failure import clean, failed
from tandem.domain.action import HttpAction
from tandem.domain.json import JsonValue, decode, encode
from tandem.domain.outcome import Failed, FailureClass, Outcome, Succeeded, too_large
from tandem.domain.provider import provider_of_url
from tandem.ports.executor import AttemptSpec, Progress

if TYPE_CHECKING:
    import httpx2

CONNECTIONS_MAX = 1000
KEPT_ALIVE_MAX = 100
REDIRECTS_MAX = 10
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000
PORT_MAX = 65_535
TERMINAL_STATUSES = frozenset((401, 403))


class HttpExecutor:
    """Sends requests through one shared client, made with the first request.

    There is no limit on the time an answer takes: every chunk is reported as progress, and the
    caller cancels what stays silent. Cookies are never kept: requests of different runs and
    tenants share the client. Proxies of the engine's environment apply.
    """

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client and its connections; twice is harmless."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """Send the request and judge the answer."""
        import httpx2

        action = attempt.action
        assert isinstance(action, HttpAction)
        client = self._ready_client()
        try:
            request = _request(client, attempt, action)
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            return _cannot_send(action, error)
        try:
            response = await client.send(
                request, stream=True, follow_redirects=action.follow_redirects
            )
            try:
                progress("event", f"status {response.status_code}")
                body = await _body(response, attempt, progress)
            finally:
                await response.aclose()
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            return _cannot_send(action, error)
        except httpx2.TooManyRedirects:
            return failed(
                FailureClass.EXECUTION_ERROR,
                f"{_name(action)} was redirected more than {REDIRECTS_MAX} times",
            )
        except httpx2.TransportError as error:
            return failed(
                FailureClass.PROVIDER_TRANSIENT, f"{_name(action)}: {_why(action, error)}"
            )
        except httpx2.DecodingError as error:
            return failed(
                FailureClass.EXECUTION_ERROR, f"{_name(action)}: the body cannot be read: {error}"
            )
        if isinstance(body, Failed):
            return body
        return judge(action, response.status_code, response.headers, body, response.encoding)

    def _ready_client(self) -> "httpx2.AsyncClient":
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                limits=httpx2.Limits(
                    max_connections=CONNECTIONS_MAX, max_keepalive_connections=KEPT_ALIVE_MAX
                ),
                max_redirects=REDIRECTS_MAX,
                trust_env=True,
            )
        return self._client


def judge(
    action: HttpAction,
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    encoding: str | None = None,
) -> Outcome:
    """Turn an answer into an outcome; `{status, headers, body}` is the output of a good one."""
    expected = status in action.expect_status if action.expect_status else 200 <= status < 300
    text = _text(content, encoding)
    if not expected:
        return _bad_status(action, status, headers, text)
    body: JsonValue = text
    if not content:
        body = None
    elif _is_json(headers.get("content-type", "")):
        try:
            body = decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return failed(
                FailureClass.EXECUTION_ERROR,
                f"{_name(action)} answered {status} with a body that is not the JSON it claims: "
                f"{error}",
                detail=text,
            )
    output: JsonValue = {
        "status": status,
        "headers": {name.lower(): value for name, value in headers.items()},
        "body": body,
    }
    return Succeeded(output=output)


def retry_after_ms(value: str | None, now_ms: int) -> int | None:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).

    None when it is missing or not readable; at most a day.
    """
    if not value:
        return None
    if value.strip().isdecimal():
        try:
            wanted = int(value) * 1000
        except ValueError:  # more digits than Python reads
            return RETRY_AFTER_MAX_MS
    else:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        wanted = int(moment.timestamp() * 1000) - now_ms
    return min(max(wanted, 0), RETRY_AFTER_MAX_MS)


def _request(
    client: "httpx2.AsyncClient", attempt: AttemptSpec, action: HttpAction
) -> "httpx2.Request":
    import httpx2

    headers = {"Idempotency-Key": attempt.idempotency_key}
    if attempt.traceparent:
        headers["traceparent"] = attempt.traceparent
    content: bytes | None = None
    if action.json_body is not None:
        content = encode(action.json_body)
        headers["Content-Type"] = "application/json"
    elif action.text_body is not None:
        content = action.text_body.encode()
        headers["Content-Type"] = "text/plain; charset=utf-8"
    given = {name.lower() for name in action.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in given}
    url = httpx2.URL(action.url)
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx2.InvalidURL("it must begin with http:// or https:// and name a host")
    if url.port is not None and url.port > PORT_MAX:
        raise httpx2.InvalidURL(f"{url.port} is no port; the last one is {PORT_MAX}")
    return client.build_request(
        action.method,
        url,
        headers=headers | action.headers,
        content=content,
        timeout=httpx2.Timeout(None, connect=action.connect_timeout_ms / 1000),
    )


async def _body(
    response: "httpx2.Response", attempt: AttemptSpec, progress: Progress
) -> bytes | Failed:
    body = bytearray()
    bytes_max = attempt.output_bytes_max
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > bytes_max:
            what = f"the answer that node `{attempt.node_id}` is getting"
            return too_large(what, len(body), bytes_max, instead="fetch it with a command")
        progress("event", f"{len(body)} bytes")
    return bytes(body)


def _bad_status(action: HttpAction, status: int, headers: Mapping[str, str], text: str) -> Failed:
    family, wait_ms = FailureClass.EXECUTION_ERROR, None
    if status == 429 or status >= 500:
        family = FailureClass.PROVIDER_TRANSIENT
        wait_ms = retry_after_ms(headers.get("retry-after"), time.time_ns() // 1_000_000)
    elif status in TERMINAL_STATUSES:
        family = FailureClass.PROVIDER_TERMINAL
    return failed(
        family,
        f"{_name(action)} answered {status}",
        detail=text,
        retry_after_ms=wait_ms,
        provider=provider_of_url(action.url),
    )


def _cannot_send(action: HttpAction, error: Exception) -> Failed:
    return failed(
        FailureClass.MISSING_CONFIG, f"the request {_name(action)} cannot be sent: {error}"
    )


def _why(action: HttpAction, error: Exception) -> str:
    import httpx2

    if isinstance(error, httpx2.ConnectTimeout):
        return f"no connection within {action.connect_timeout_ms} ms"
    if isinstance(error, httpx2.ConnectError):
        return f"cannot connect: {error or 'refused'}"
    return f"the connection broke: {error or type(error).__name__}"


def _name(action: HttpAction) -> str:
    """Name the request without what may be secret: user, password, query."""
    url = action.url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{action.method} {scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _text(content: bytes, encoding: str | None) -> str:
    try:
        return clean(content.decode(encoding or "utf-8", errors="replace"))
    except LookupError:  # a charset that Python does not know
        return clean(content.decode(errors="replace"))

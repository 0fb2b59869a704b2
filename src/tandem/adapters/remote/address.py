"""Where a server is, and whether a token may be sent there."""

from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from tandem.domain.errors import InvalidRequest


def normal_url(text: str) -> str:
    """Return the base URL of a server: scheme and host in lower case, no slash at its end.

    Raises:
        InvalidRequest: it is none; the message says why.
    """
    given = text.strip()
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise _wrong(given, str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(given, "write it as http://127.0.0.1:39731 or https://tandem.example.org")
    if parts.username is not None or parts.password is not None:
        raise _wrong("…", "a URL holds no user and no password; log in with `tandem login URL`")
    if parts.query or parts.fragment:
        raise _wrong(given, "it ends before `?` and `#`")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    place = host if port in (None, default) else f"{host}:{port}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", ""))


def _wrong(given: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{given[:200]!r} is no URL of a server: {why}", code="url_invalid")


def is_loopback(url: str) -> bool:
    """Say whether a server is on this machine, so that nobody else hears what is said to it."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_token_is_safe(url: str, *, is_insecure: bool) -> None:
    """Refuse to send a token where others can read it on its way.

    Raises:
        InvalidRequest: it would travel as plain text over a network.
    """
    if urlsplit(url).scheme == "https" or is_loopback(url) or is_insecure:
        return
    raise InvalidRequest(
        f"a token would be sent to {url} as plain text, and whoever is on the way can read it; use "
        "https://, or say --insecure where the network is your own",
        code="token_unsafe",
    )

"""What may be said of a text that could hold secrets: one redactor for everything that is told.

Two ways find a secret: by its value, where somebody has configured it, also encoded; and by its
shape, where it looks like a token of ours, a credential of a request, or a password in a URL.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

from tandem.domain.json import encode

REDACTED: Final = "[redacted]"
SECRET_CHARS_MIN: Final = 6
"""A shorter value is found too often by chance; it would blank out what is no secret."""
DEPTH_MAX: Final = 8
KEYS_MAX: Final = 512
"""So many keys of mappings are remembered; they are the same again and again."""

_SHAPES: Final = (
    # Tokens of this engine, and the secrets of webhooks.
    (("tdm_",), re.compile(r"\btdm_[A-Za-z0-9_\-]{8,}"), REDACTED),
    (("whsec_",), re.compile(r"\bwhsec_[A-Za-z0-9+/=_\-]{8,}"), REDACTED),
    # What requests carry; a Bearer token may also stand alone.
    (
        ("authorization", "x-agent-", "x-tandem-", "x-api-key", "cookie"),
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|x-agent-token|x-tandem-token|x-api-key|set-cookie"
            r"|cookie|x-tandem-context-(?:assertion|jws)|x-tandem-tenant-context-jws)"
            r"""(["']?\s*[:=]\s*["']?)(?:(?:bearer|basic|token)\s+)?[^\s"',;}\])]+"""
        ),
        rf"\1\2{REDACTED}",
    ),
    (
        ("bearer", "basic"),
        re.compile(r"\b((?i:bearer|basic)\s+)(?=\S*[A-Z0-9._=])[A-Za-z0-9._~+/=\-]{6,}"),
        rf"\1{REDACTED}",
    ),
    # Signed assertions and keys of providers.
    (("eyj",), re.compile(r"\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"), REDACTED),
    (("sk-", "rk-", "pk-"), re.compile(r"\b(?:sk|rk|pk)-[A-Za-z0-9_\-]{16,}"), REDACTED),
    (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
        REDACTED,
    ),
    (("akia",), re.compile(r"\bAKIA[0-9A-Z]{16}\b"), REDACTED),
    (
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        REDACTED,
    ),
    # Passwords in URLs, and what names itself.
    (("://",), re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"), rf"\1{REDACTED}"),
    (
        ("password", "passwd", "secret", "apikey", "api_key", "token"),
        re.compile(
            r"(?i)((?:password|passwd|secret|api_?key|access_?token|auth_?token))"
            r"""(["']?\s*[=:]\s*["']?)[^\s"'&,;}\])]+"""
        ),
        rf"\1\2{REDACTED}",
    ),
)
"""Words that have to be there, in lower case; what is taken out; what stands there instead.

Most texts hold none of the words, and to look for a word is cheap.
"""
_SECRET_KEYS: Final = re.compile(
    r"(?i)(?:^|[_\-])(?:password|passwd|secret|token|api_?key|authorization|cookie)$"
)


class Redactor:
    """Takes secrets out of texts and of whatever is made of texts. It never fails.

    Args:
        secrets: values that are never shown, whatever they look like; those of less than
            `SECRET_CHARS_MIN` characters are found by shape only.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= SECRET_CHARS_MIN
            for form in _forms_of(secret)
        }
        # The longest first: a secret that holds another one goes as a whole.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._key = lru_cache(KEYS_MAX)(self._look_at_key)

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._values is not None:
            text = self._values.sub(REDACTED, text)
        lowered = text.lower()
        for words, shape, instead in _SHAPES:
            for word in words:
                if word in lowered:
                    text = shape.sub(instead, text)
                    break
        return text

    def value(self, value: Any, *, depth: int = 0) -> Any:
        """Return texts, mappings and sequences without secrets; anything else as it is.

        What lies deeper than `DEPTH_MAX` is told as a text.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping | Sequence | set | frozenset):
            if depth >= DEPTH_MAX:
                return self.text(str(value))
            if isinstance(value, Mapping):
                return dict(self._item(*item, depth=depth + 1) for item in value.items())
            return [self.value(held, depth=depth + 1) for held in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))

    def _item(self, key: Any, held: Any, *, depth: int) -> tuple[str, Any]:
        shown, is_secret = self._key(str(key))
        if is_secret and isinstance(held, str) and held:
            return shown, REDACTED
        return shown, self.value(held, depth=depth)

    def _look_at_key(self, key: str) -> tuple[str, bool]:
        return self.text(key), _SECRET_KEYS.search(key) is not None


def _forms_of(secret: str) -> Iterable[str]:
    """Yield a secret as it is, as in URLs, as in JSON, and as it shows within base64."""
    yield secret
    content = secret.encode("utf-8", "surrogateescape")
    yield quote(content, safe="")
    yield quote_plus(content)
    yield encode(content.decode("utf-8", "replace")).decode()[1:-1]
    for shift in range(3):
        coded = b64encode(b"\0" * shift + content).decode().rstrip("=")
        # The first and the last characters also depend on what stands around the secret.
        first = (0, 2, 3)[shift]
        last = len(coded) - ((shift + len(content)) % 3 != 0)
        core = coded[first:last]
        yield core
        yield core.translate({ord("+"): "-", ord("/"): "_"})

"""Secrets of webhooks that we make."""

from base64 import b64encode
from collections.abc import Callable
from typing import Final

from tandem.domain.webhook import Scheme

SECRET_BYTES: Final = 48
STANDARD_SECRET_BYTES: Final = 32
"""Standard Webhooks asks for 24 to 64 bytes."""


def new_secret(scheme: Scheme, draw: Callable[[int], bytes]) -> str:
    """Return a secret made of random bytes; that of Standard Webhooks is base64, as it asks."""
    if scheme is Scheme.STANDARD_WEBHOOKS_V1:
        return f"whsec_{b64encode(draw(STANDARD_SECRET_BYTES)).decode()}"
    return f"whsec_{draw(SECRET_BYTES).hex()}"

"""How often the public addresses may be asked: fixed windows, by address and by network."""

from ipaddress import IPv6Address, ip_address
from typing import Final

WINDOW_MS: Final = 60_000
KEYS_MAX: Final = 10_000
"""So many callers are told apart in one window; all others share one count."""
_OTHERS: Final = "*"
_KEY_MAX: Final = 80


class IngressRates:
    """Counts in this process. A limit of 0 is none."""

    def __init__(self, *, token_per_min: int = 120, network_per_min: int = 30) -> None:
        self._token_per_min = token_per_min
        self._network_per_min = network_per_min
        self._window = -1
        self._counts: dict[str, int] = {}

    def wait_s(self, token: str, peer: str, *, now_ms: int) -> int:
        """Count a request; return 0 when it may pass, else after how many seconds it may."""
        window = now_ms // WINDOW_MS
        if window != self._window:
            self._window = window
            self._counts.clear()
        of_token = self._count(f"token {token[:_KEY_MAX]}")
        of_network = self._count(f"network {network_of(peer)}")
        is_over = 0 < self._token_per_min < of_token or 0 < self._network_per_min < of_network
        if not is_over:
            return 0
        return max(-(-((window + 1) * WINDOW_MS - now_ms) // 1_000), 1)

    def _count(self, key: str) -> int:
        if key not in self._counts and len(self._counts) >= KEYS_MAX:
            key = f"{key.partition(' ')[0]} {_OTHERS}"
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]


def network_of(peer: str) -> str:
    """Return the network of an address: 24 bits of IPv4, 64 bits of IPv6."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"{int(address) >> 64:x}/64"
        address = address.ipv4_mapped
    return f"{int(address) >> 8:x}/24"

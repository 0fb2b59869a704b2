"""How often the public addresses may be asked."""

import pytest

from tandem.adapters.http.rates import KEYS_MAX, IngressRates, network_of


def test_a_window_lets_so_many_through_and_says_when_it_ends() -> None:
    rates = IngressRates(token_per_min=2, network_per_min=0)
    assert [rates.wait_s("t", "1.2.3.4", now_ms=10_500) for _ in range(3)] == [0, 0, 50]
    assert rates.wait_s("u", "1.2.3.4", now_ms=10_500) == 0
    assert rates.wait_s("t", "1.2.3.4", now_ms=59_999) == 1
    assert rates.wait_s("t", "1.2.3.4", now_ms=60_000) == 0


def test_a_network_is_counted_over_all_addresses_of_it() -> None:
    rates = IngressRates(token_per_min=0, network_per_min=2)
    asked = [rates.wait_s(f"t{n}", f"1.2.3.{n}", now_ms=0) > 0 for n in range(3)]
    assert asked == [False, False, True]
    assert rates.wait_s("t", "1.2.4.1", now_ms=0) == 0


def test_strangers_cannot_make_it_remember_without_end() -> None:
    rates = IngressRates(token_per_min=3, network_per_min=0)
    for number in range(KEYS_MAX):
        rates.wait_s(f"t{number}", "1.2.3.4", now_ms=0)
    late = [rates.wait_s(f"late{number}", "1.2.3.4", now_ms=0) for number in range(10)]
    assert late[-1] > 0
    assert rates.wait_s("t1", "1.2.3.4", now_ms=0) == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("10.0.0.1", "10.0.0.255", True),
        ("10.0.0.1", "10.0.1.1", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.9", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_addresses_of_one_network(one: str, other: str, is_same: bool) -> None:
    assert (network_of(one) == network_of(other)) is is_same

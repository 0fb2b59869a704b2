"""What the engine really records is what the vocabulary says."""

from tandem.domain.vocabulary import WORDS
from tandem.testing.simulation import simulate

SEEDS = 60


def test_the_metadata_of_every_event_is_declared() -> None:
    found: set[tuple[str, str]] = set()
    seen: set[str] = set()
    for seed in range(SEEDS):
        for event in simulate(seed).events:
            seen.add(event.event.value)
            undeclared = set(event.metadata) - set(WORDS[event.event].metadata)
            found |= {(event.event.value, key) for key in undeclared}
    assert found == set()
    assert len(seen) > 20

"""What execution profiles let pass, counted, so that a rule can graduate (http-api 3.7)."""

from collections.abc import Iterable
from typing import Any

from tandem.domain.disposition import DISPOSITIONS, UNMARKED
from tandem.domain.reading import Reading
from tandem.domain.run import Handling


def graduation_counts(
    outputs: int, relaxed: Iterable[tuple[Reading, Handling | None]]
) -> dict[str, Any]:
    """Return how often each class was let pass, by what people think of those outputs.

    `outputs` is how many outputs were looked at; an output of which no class is known counts only
    there.
    """
    by_class: dict[str, dict[str, int]] = {}
    count = 0
    for reading, handling in relaxed:
        classes = reading.relaxation.relaxed_validator_classes if reading.relaxation else ()
        count += bool(classes)
        word = handling.disposition if handling is not None else ""
        for name in classes:
            marks = by_class.setdefault(name, dict.fromkeys(sorted(DISPOSITIONS), 0))
            marks[word or UNMARKED] += 1
    return {
        "total_outputs_scanned": outputs,
        "total_relaxed_outputs": count,
        "by_class": dict(sorted(by_class.items())),
    }

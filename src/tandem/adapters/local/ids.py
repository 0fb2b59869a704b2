"""Random identifiers."""

import uuid


class RandomIds:
    """128 random bits each."""

    def new(self) -> str:
        """See `Ids.new`."""
        return uuid.uuid4().hex

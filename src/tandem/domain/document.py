"""The base of every part of the automation document."""

from pydantic import BaseModel, ConfigDict


class DocumentPart(BaseModel):
    """A part of the document: no unknown keys, no infinities, never edited after it was read.

    What checks a part is built when the first one is read; most commands never read any.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_by_name=True,
        defer_build=True,
    )

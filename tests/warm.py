"""Completes the models that wait for their first use, once, before processes are forked.

Each fork would complete them for itself, which takes longer than the run that it is to drive.
Imported by those who fork; the forkserver can only be told to import.
"""

import gc

from pydantic import BaseModel

import tandem.adapters.cli.app
import tandem.engine.attempts
import tandem.serving


def complete(model: type[BaseModel]) -> None:
    """Complete a model and all that are made from it."""
    for made_from_it in model.__subclasses__():
        made_from_it.model_rebuild()
        complete(made_from_it)


complete(BaseModel)
tandem.engine.attempts._ACTION.rebuild()
# The collector of a fork would touch, and so copy, the memory of all that was imported.
gc.collect()
gc.freeze()

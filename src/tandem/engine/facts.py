"""What can be seen of a run only from outside: the files of its workspace, its large outputs."""

from typing import Protocol

from tandem.domain.accounting import TEXT_BYTES_MAX, FileFact
from tandem.domain.errors import NotFound, Refused
from tandem.domain.json import JsonValue, encode
from tandem.domain.run import NodeRun
from tandem.domain.view import RunView
from tandem.ports.workspace import WorkspaceFiles


class Outputs(Protocol):
    """Reads the outputs of nodes, wherever they are kept."""

    def output_of(self, view: RunView, node: NodeRun) -> JsonValue:
        """Return the output of a node run.

        Raises:
            NotFound: the artifact is gone.
        """
        ...


class RunFacts:
    """The facts of one run, read when somebody asks; see `accounting.Facts`."""

    def __init__(self, outputs: Outputs, view: RunView, files: WorkspaceFiles) -> None:
        self._outputs = outputs
        self._view = view
        self._files = files

    def file(self, path: str) -> FileFact:
        """See `Facts.file`."""
        workspace = self._view.run.workspace
        if not workspace:
            return FileFact(problem="the run has no workspace")
        try:
            text = self._files.read_text(workspace, path, bytes_max=TEXT_BYTES_MAX)
        except NotFound:
            return FileFact(problem="it was not written")
        except Refused as refused:
            return FileFact(problem=str(refused))
        return FileFact(text=text)

    def output_text(self, node: NodeRun) -> str:
        """See `Facts.output_text`; an output that is gone says nothing."""
        if node.output is not None:
            return node.output.decode("utf-8", "replace")
        try:
            return encode(self._outputs.output_of(self._view, node)).decode("utf-8", "replace")
        except NotFound:
            return ""

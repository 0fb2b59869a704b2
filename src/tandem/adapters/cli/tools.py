"""What the command line is given: everything concrete, chosen by whoever starts it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from tandem.domain.automation import Automation
from tandem.domain.errors import Problem
from tandem.domain.ids import RunId, TenantId
from tandem.domain.run import Run
from tandem.domain.view import RunView
from tandem.engine.automations import Automations
from tandem.engine.engine import Engine
from tandem.engine.event_feed import EventFeed
from tandem.engine.tokens import Tokens
from tandem.engine.webhooks import Webhooks
from tandem.ports.artifacts import Artifacts
from tandem.ports.host import Host
from tandem.ports.store import Store
from tandem.ports.workspace import WorkspaceFiles
from tandem.settings import Settings


class LocalStore(Store, Protocol):
    """The store of this machine: the port, and what only a person at the machine asks for."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    def read(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """Load a run as one consistent picture.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def list_run_ids(self, prefix: str, *, tenant: TenantId, limit: int) -> Sequence[RunId]:
        """Return ids of runs that begin with `prefix`, in the order of the ids."""
        ...

    def read_newest(self, *, limit: int) -> tuple[Sequence[Run], Sequence[str], int]:
        """Return the newest runs of all tenants, which cannot be read and why, and how many exist.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        ...

    def back_up(self, target: Path, *, progress: Callable[[int, int], None]) -> int:
        """Copy the store as it is at this moment to a new file; return its size in bytes.

        Raises:
            Refused: the file exists.
            StoreUnavailable: it could not be written; nothing is left there.
        """
        ...

    def check(self) -> list[str]:
        """Return what is wrong with the file; empty when all is well."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class OpenEngine(Protocol):
    """An open engine and what stands around it."""

    @property
    def engine(self) -> Engine:
        """The engine; entered when it drives."""
        ...

    @property
    def store(self) -> LocalStore:
        """Its store."""
        ...

    @property
    def artifacts(self) -> Artifacts:
        """Its large outputs."""
        ...

    @property
    def automations(self) -> Automations:
        """The automations that its store keeps."""
        ...

    @property
    def feed(self) -> EventFeed:
        """The live events of its store."""
        ...

    @property
    def tokens(self) -> Tokens:
        """The tokens that its store keeps."""
        ...

    @property
    def webhooks(self) -> Webhooks:
        """The webhook triggers that its store keeps."""
        ...


class Frame(Protocol):
    """One frame of a stream of events."""

    @property
    def id(self) -> str:
        """By which a stream is gone on with; empty when the frame has none."""
        ...

    @property
    def document(self) -> Any:
        """What it tells; None for a sign of life."""
        ...


class Server(Protocol):
    """A server that is asked over HTTP. Its refusals are raised as the errors of the engine."""

    @property
    def url(self) -> str:
        """Its base URL."""
        ...

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        repeats: bool = False,
    ) -> Any:
        """Return the document that answers a request.

        Args:
            method: of HTTP.
            path: below its URL, escaped.
            body: a JSON object.
            query: parameters; those of None are left out.
            key: an idempotency key, by which the server knows a request that came before.
            repeats: it may be asked again when no answer came; a GET and what has a key always may.

        Raises:
            EngineError: what the server answered; StoreUnavailable when nobody did.
        """
        ...

    async def content(self, method: str, path: str) -> bytes:
        """Return the bytes that answer a request. See `ask`."""
        ...

    def stream(
        self, path: str, *, query: Mapping[str, Any] | None = None, last_id: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Frame]]:
        """Open a stream of events behind `last_id`.

        Raises (when entered, or while frames are taken):
            EngineError: the server refuses it; StoreUnavailable when it breaks off.
        """
        ...


class Logins(Protocol):
    """The tokens of servers that a person has logged in to."""

    @property
    def path(self) -> Path:
        """The file that holds them."""
        ...

    def find(self, url: str) -> str:
        """Return the token for a server, empty when there is none.

        Raises:
            Refused: others can read the file, or it is damaged.
        """
        ...

    def keep(self, url: str, token: str) -> None:
        """Keep the token of a server in place of an older one.

        Raises:
            Refused: the file cannot be written, or is not safe.
        """
        ...

    def forget(self, url: str | None) -> list[str]:
        """Forget the token of one server, or with None of all; return whose there were.

        Raises:
            Refused: the file cannot be written, or is not safe.
        """
        ...


class Tools(Protocol):
    """The concrete parts, each made when it is asked for."""

    def read_settings(self) -> Settings:
        """Read the settings of this process.

        Raises:
            InvalidSetting: a variable has a value that its setting does not allow.
        """
        ...

    def open_engine(
        self,
        settings: Settings,
        *,
        drives: bool = True,
        own_only: bool = False,
        on_problem: Callable[[str], None] | None = None,
    ) -> AbstractAsyncContextManager[OpenEngine]:
        """Open an engine; leaving hands its runs back and closes the store.

        Raises (when entered):
            StoreUnavailable: the store cannot be opened.
            StoreTooNew: a newer version made it.
        """
        ...

    def serve(self, settings: Settings, *, host: str, port: int, say: Callable[[str], None]) -> int:
        """Drive runs and answer over HTTP until a signal comes; see `tandem.serving.serve`."""
        ...

    def server_url(self, text: str) -> str:
        """Return the URL of a server as it is kept.

        Raises:
            InvalidRequest: it is none.
        """
        ...

    def checked_token(self, url: str, token: str, *, is_insecure: bool) -> str:
        """Return a token that may be sent to a server.

        Raises:
            InvalidRequest: it would travel over a network as plain text, and not on purpose.
        """
        ...

    def open_logins(self, settings: Settings) -> Logins:
        """Open the file of logins."""
        ...

    def connect(self, url: str, token: str) -> AbstractAsyncContextManager[Server]:
        """Open a client of a server; nothing is sent yet."""
        ...

    def open_store(self, settings: Settings) -> LocalStore:
        """Open the store alone.

        Raises:
            StoreUnavailable: it cannot be opened.
            StoreTooNew: a newer version made it.
        """
        ...

    def open_artifacts(self, settings: Settings) -> Artifacts:
        """Open the folder of large outputs."""
        ...

    def open_files(self) -> WorkspaceFiles:
        """Return the files of workspaces on this machine."""
        ...

    def export_store(
        self,
        settings: Settings,
        path: Path,
        *,
        with_contents: bool,
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """Write every run to a new file; see `tandem.transfer.export_to`."""
        ...

    async def import_store(
        self, settings: Settings, path: Path, *, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Read runs from a file or folder; see `tandem.transfer.import_from`."""
        ...

    def collect_garbage(
        self, settings: Settings, *, before_ms: int, now_ms: int, dry_run: bool
    ) -> dict[str, Any]:
        """Remove what nothing needs; see `tandem.garbage.collect`."""
        ...

    def open_host(self, settings: Settings) -> Host:
        """Return this machine's view of which engines live; it is not entered."""
        ...

    def load_automation(
        self, path: Path, *, warn: Callable[[Problem], None] | None = None
    ) -> Automation:
        """Read an automation from a file; `warn` hears of what is allowed and hardly meant.

        Raises:
            NotFound: there is no such file.
            InvalidAutomation: with every mistake that was found.
        """
        ...

    def automation_json_schema(self) -> Mapping[str, Any]:
        """Return the JSON Schema of the file form."""
        ...

    def sqlite_version(self) -> str:
        """Return the version of the SQLite that the store uses."""
        ...

    def file_system_of(self, path: Path) -> str:
        """Return the type of the file system that holds `path`; empty where it cannot be told."""
        ...

    def traces_of(self, settings: Settings) -> str:
        """Say in one line whether spans are sent, and what is missing if not."""
        ...

    async def isolation_of(self, settings: Settings) -> str:
        """Return how bodies are kept from outliving the engine here, tried out."""
        ...

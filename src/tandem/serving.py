"""The server process: the engine, the application and the listener, from start to SIGTERM."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec
import uvicorn
import uvloop

from tandem.adapters.files.document import parse_automation
from tandem.adapters.http.access import AuthMode, StoredAccess
from tandem.adapters.http.allowances import Allowances
from tandem.adapters.http.app import make_app
from tandem.adapters.http.definition_reader import DefinitionReader, ReaderProcess
from tandem.adapters.http.guard import host_of, is_loopback
from tandem.adapters.http.listener import BoundedProtocol
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.rates import IngressRates
from tandem.adapters.http.service import HttpLimits, Service
from tandem.adapters.http.site import Site
from tandem.adapters.http.sse import StreamLimits, Streams
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.files import LocalFiles
from tandem.adapters.local.ids import RandomIds
from tandem.adapters.local.signatures import Ed25519Signatures
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.assertion import AssertionPolicy, ReplayMode
from tandem.domain.errors import EngineError, InvalidRequest, StoreUnavailable
from tandem.domain.rate import Rate
from tandem.domain.redaction import Redactor
from tandem.engine.engine import Engine
from tandem.engine.queries import Queries
from tandem.observing import Observing
from tandem.ports.access import AccessStore
from tandem.ports.executor import Executor
from tandem.reading import READER_PROGRAM
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine, open_store_beside

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
BACKLOG: Final = 2_048
LEAVE_MAX_S: Final = 5
"""So long answers may still take when the server ends; streams say goodbye at once."""
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)

Say = Callable[[str], None]


class Tell(Protocol):
    """Says something to a person, and to the log by the name of what happened."""

    def __call__(self, event: str, words: str, **facts: str) -> None: ...


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    say: Say,
    agents: Executor | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code; a second signal leaves at once.

    Args:
        settings: of this process.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        say: hears what a person at the terminal is to know.
        agents: runs the sessions of agent nodes, where there is something that can.

    Raises:
        InvalidRequest: the address cannot be listened on, or not without a token, or there are no
            keys to verify tenant contexts with.
        StoreUnavailable: the store cannot be opened.
        StoreTooNew: a newer version made it.
    """
    check_keys(settings)
    settings = msgspec.structs.replace(settings, host=host)
    with (
        _listen(host, port) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
    ):
        return loop.run(
            _serve(
                settings,
                host=host,
                listener=listener,
                say=say,
                agents=agents,
            )
        )


def check_keys(settings: Settings) -> None:
    """Refuse a mode that needs tenant contexts without the keys to verify them with.

    Raises:
        InvalidRequest: no file with keys is named.
    """
    if settings.auth_mode != AuthMode.LOCAL and settings.assertion_keys_file is None:
        raise InvalidRequest(
            f"TANDEM_RUNTIME_AUTH_MODE={settings.auth_mode} needs signed tenant contexts; name the "
            "file with the keys that verify them in TANDEM_CONTEXT_ASSERTION_KEYS_FILE",
            code="assertion_keys_required",
        )


def check_exposure(settings: Settings, host: str, store: AccessStore) -> bool:
    """Say whether a token is needed; refuse to open the engine to others while none is.

    Raises:
        InvalidRequest: the address is not this machine's own, and no token is there.
    """
    if settings.auth_mode != AuthMode.LOCAL or settings.has_token:
        return True
    if store.list_tokens(tenant=None, after_id="", limit=1):
        return True
    if not is_loopback(host):
        raise InvalidRequest(
            f"cannot listen on {host} without a token: everybody who reaches this address could "
            "run commands on this machine; make one with `tandem tokens create`, set "
            "TANDEM_API_TOKEN, or listen on 127.0.0.1",
            code="token_required",
        )
    return False


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """Take the address before anything else is opened.

    Raises:
        InvalidRequest: somebody else has it, or it is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise InvalidRequest(
                f"cannot listen on {host}:{port}: {error.strerror or error}; "
                "choose another with --host and --port",
                code="address_unusable",
            ) from error
        yield listener


async def _serve(
    settings: Settings,
    *,
    host: str,
    listener: socket.socket,
    say: Say,
    agents: Executor | None,
) -> int:
    observing = Observing(settings)
    site = Site(
        access=LocalAccess(settings.api_token_text()),
        limits=HttpLimits(
            body_bytes_max=settings.http_body_bytes_max,
            origins=settings.cors_origins,
            metrics_are_public=settings.metrics_public,
        ),
        complain=observing.incident,
        observers=observing.observers,
        metrics=observing.metrics,
        allowances=Allowances(run_creations_per_min=settings.run_creations_per_min),
        redactor=Redactor(settings.secret_values()),
    )
    server = _Server(
        uvicorn.Config(
            make_app(site),
            lifespan="off",
            http=BoundedProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=min(settings.shutdown_timeout_s, LEAVE_MAX_S),
        )
    )

    def tell(event: str, words: str, **facts: str) -> None:
        observing.say(event, **facts)
        say(words)

    stop = _Stop(server, site, tell)
    reader = ReaderProcess(READER_PROGRAM)
    async with observing, asyncio.TaskGroup() as group:
        listening = group.create_task(server.serve([listener]), name="listen")
        try:
            store = await _open_unless_stopped(settings, stop)
            if store is not None:
                needs_token = _check_open(settings, host, store)
                async with open_engine(
                    settings,
                    store=store,
                    lingers=True,
                    agents=agents,
                    on_problem=observing.problem,
                    prepare=observing.prepare,
                ) as parts:
                    site.open(
                        service_of(parts, reader=reader),
                        access=access_of(parts, complain=observing.problem),
                        hosts=_hosts(settings, host, needs_token=needs_token),
                    )
                    stop.engine = parts.engine
                    _greet(listener, tell, needs_token=needs_token)
                    await listening
        finally:
            server.should_exit = True
            reader.close()
        tell("stopped", "stopped")
    return 0


async def _open_unless_stopped(settings: Settings, stop: "_Stop") -> SqliteStore | None:
    """Open the store while the server already answers that it starts; None: it is to end."""
    try:
        store = await open_store_beside(settings, is_called_off=lambda: stop.is_asked)
    except StoreUnavailable:
        if stop.is_asked:
            return None
        raise
    if stop.is_asked:
        store.close()
        return None
    return store


def _check_open(settings: Settings, host: str, store: SqliteStore) -> bool:
    """Check the exposure; a store that is not to be served is closed."""
    try:
        return check_exposure(settings, host, store)
    except EngineError:
        store.close()
        raise


def access_of(parts: Parts, *, complain: Say | None = None) -> StoredAccess:
    """Return who says who asks, as the settings want it.

    Raises:
        InvalidSetting: the file of the token cannot be used.
        InvalidRequest: the file of the keys cannot be used.
    """
    settings = parts.settings
    keys = settings.assertion_keys_file
    return StoredAccess(
        store=parts.store,
        clock=SystemClock(),
        root_token=settings.api_token_text(),
        mode=AuthMode(settings.auth_mode),
        signatures=Ed25519Signatures.read(keys) if keys is not None else None,
        assertions=AssertionPolicy(
            issuer=settings.assertion_issuer,
            audience=settings.assertion_audience,
            replay=ReplayMode(settings.assertion_replay),
        ),
        requests=Rate("requests are answered", per_min=settings.tenant_requests_per_min),
        complain=complain,
    )


def service_of(parts: Parts, *, reader: ReaderProcess | None = None) -> Service:
    """Return what the routes need of an open engine; `reader` reads large definitions."""
    settings = parts.settings
    clock = SystemClock()
    streams = StreamLimits(
        keep_alive_ms=settings.event_keep_alive_ms, streams_max=settings.event_streams_max
    )
    return Service(
        engine=parts.engine,
        store=parts.store,
        artifacts=parts.artifacts,
        files=LocalFiles(),
        waiters=parts.waiters,
        queries=Queries(parts.store),
        streams=Streams(parts.feed, clock, streams),
        clock=clock,
        ids=RandomIds(),
        webhooks=parts.webhooks,
        tokens=parts.tokens,
        ingress_rates=IngressRates(
            token_per_min=parts.settings.webhook_rate_per_min,
            network_per_min=parts.settings.webhook_network_rate_per_min,
        ),
        reader=DefinitionReader(parse_automation, process=reader),
        workspace_root=str(Path.cwd()),
    )


def _hosts(settings: Settings, host: str, *, needs_token: bool) -> frozenset[str] | None:
    """Return the names to answer to. With a token a page of somebody else has nothing to send."""
    if needs_token and not settings.allowed_hosts:
        return None
    names = (*LOOPBACK_NAMES, host_of(f"[{host}]" if ":" in host else host))
    return frozenset({*names, *settings.allowed_hosts})


def _greet(listener: socket.socket, tell: Tell, *, needs_token: bool) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"
    tell("serving", f"serving on {url}", url=url)
    if not needs_token:
        tell(
            "no_token",
            "no token is there: whoever reaches this address on this machine may do everything; "
            "`tandem tokens create` makes one, TANDEM_API_TOKEN sets one",
        )


class _Stop:
    """Obeys SIGTERM and SIGINT: the first one ends in order, the next one at once."""

    def __init__(self, server: "_Server", site: Site, tell: Tell) -> None:
        self._server = server
        self._site = site
        self._tell = tell
        self.is_asked = False
        self.engine: Engine | None = None
        loop = asyncio.get_running_loop()
        for number in _STOPS:
            loop.add_signal_handler(number, self._obey, number)

    def _obey(self, number: int) -> None:
        if self.is_asked:
            # The kernel frees the engine's lock and the supervisors end every body.
            os._exit(128 + number)
        self.is_asked = True
        self._tell("stopping", "stopping: what runs may come to its end; once more leaves at once")
        if self.engine is not None:
            self.engine.stop()
        self._site.leave()
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves the signals to us: the engine has to hear of them, too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

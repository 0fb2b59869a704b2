"""The program: wires the parts and hands them to the command line."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandem.collector import collect_rarely, end_soon

if TYPE_CHECKING:
    from tandem.adapters.local.artifacts import FileArtifacts
    from tandem.adapters.local.files import LocalFiles
    from tandem.adapters.local.host import LocalHost
    from tandem.adapters.remote.client import Client
    from tandem.adapters.remote.logins import Logins
    from tandem.adapters.sqlite.store import SqliteStore
    from tandem.domain.automation import Automation
    from tandem.domain.errors import Problem
    from tandem.settings import Settings
    from tandem.wiring import Parts


class LocalTools:
    """The parts of this machine. See `adapters.cli.tools.Tools` for what each promises.

    Everything is imported when it is asked for: `tandem --help` needs none of it.
    """

    def read_settings(self) -> "Settings":
        """See `Tools.read_settings`."""
        from tandem.settings import read_settings

        return read_settings(os.environ)

    def open_engine(
        self,
        settings: "Settings",
        *,
        drives: bool = True,
        own_only: bool = False,
        on_problem: Callable[[str], None] | None = None,
    ) -> "AbstractAsyncContextManager[Parts]":
        """See `Tools.open_engine`."""
        from tandem.wiring import open_engine

        return open_engine(settings, drives=drives, own_only=own_only, on_problem=on_problem)

    def serve(
        self, settings: "Settings", *, host: str, port: int, say: Callable[[str], None]
    ) -> int:
        """See `Tools.serve`."""
        from tandem.serving import serve

        return serve(settings, host=host, port=port, say=say)

    def server_url(self, text: str) -> str:
        """See `Tools.server_url`."""
        from tandem.adapters.remote.address import normal_url

        return normal_url(text)

    def checked_token(self, url: str, token: str, *, is_insecure: bool) -> str:
        """See `Tools.checked_token`."""
        from tandem.adapters.remote.address import check_token_is_safe

        if token:
            check_token_is_safe(url, is_insecure=is_insecure)
        return token

    def open_logins(self, settings: "Settings") -> "Logins":
        """See `Tools.open_logins`."""
        from tandem.adapters.remote.logins import Logins

        return Logins(settings.login_file or settings.state_dir / "login" / "logins.json")

    def connect(self, url: str, token: str) -> "Client":
        """See `Tools.connect`."""
        from tandem.adapters.remote.client import Client

        return Client(url, token)

    def open_store(self, settings: "Settings") -> "SqliteStore":
        """See `Tools.open_store`."""
        from tandem.wiring import open_store

        return open_store(settings)

    def open_artifacts(self, settings: "Settings") -> "FileArtifacts":
        """See `Tools.open_artifacts`."""
        from tandem.adapters.local.artifacts import FileArtifacts

        return FileArtifacts(settings.state_dir / "artifacts")

    def open_files(self) -> "LocalFiles":
        """See `Tools.open_files`."""
        from tandem.adapters.local.files import LocalFiles

        return LocalFiles()

    def export_store(
        self,
        settings: "Settings",
        path: Path,
        *,
        with_contents: bool,
        progress: Callable[[int], None],
    ) -> dict[str, Any]:
        """See `Tools.export_store`."""
        import msgspec

        from tandem.transfer import export_to

        found = export_to(settings, path, with_contents=with_contents, progress=progress)
        return msgspec.structs.asdict(found)

    async def import_store(
        self, settings: "Settings", path: Path, *, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """See `Tools.import_store`."""
        import msgspec

        from tandem.domain.ids import LOCAL_TENANT
        from tandem.transfer import import_from

        found = await import_from(settings, path, tenant=LOCAL_TENANT, progress=progress)
        return msgspec.structs.asdict(found)

    def collect_garbage(
        self, settings: "Settings", *, before_ms: int, now_ms: int, dry_run: bool
    ) -> dict[str, Any]:
        """See `Tools.collect_garbage`."""
        import msgspec

        from tandem.garbage import collect

        swept = collect(settings, before_ms=before_ms, now_ms=now_ms, dry_run=dry_run)
        return msgspec.structs.asdict(swept)

    def open_host(self, settings: "Settings") -> "LocalHost":
        """See `Tools.open_host`."""
        from tandem.adapters.local.host import LocalHost

        return LocalHost(settings.state_dir)

    def load_automation(
        self, path: Path, *, warn: "Callable[[Problem], None] | None" = None
    ) -> "Automation":
        """See `Tools.load_automation`."""
        from tandem.adapters.files.document import load_automation

        return load_automation(path, warn=warn)

    def automation_json_schema(self) -> Mapping[str, Any]:
        """See `Tools.automation_json_schema`."""
        from tandem.adapters.files.document import automation_json_schema

        return automation_json_schema()

    def sqlite_version(self) -> str:
        """See `Tools.sqlite_version`."""
        import apsw

        return apsw.sqlite_lib_version()

    def file_system_of(self, path: Path) -> str:
        """See `Tools.file_system_of`."""
        from tandem.adapters.sqlite.connection import file_system_of

        return file_system_of(path)

    def traces_of(self, settings: "Settings") -> str:
        """See `Tools.traces_of`."""
        from tandem.adapters.traces.sdk import standing

        return standing(os.environ) if settings.traces == "auto" else "off (TANDEM_TRACES=off)"

    async def isolation_of(self, settings: "Settings") -> str:
        """See `Tools.isolation_of`."""
        from tandem.adapters.local.spawner import Spawner
        from tandem.domain.ids import EngineId

        async with Spawner(settings.isolation) as spawner:  # type: ignore[arg-type] # checked text
            isolates = await spawner.isolates(EngineId("doctor"))
        return "pid_namespace" if isolates else "subreaper"


def main() -> int:
    """Run the command line; returns its exit code."""
    collect_rarely()
    try:
        from tandem.adapters.cli.app import main as run_command_line

        return run_command_line(LocalTools())
    except KeyboardInterrupt:  # nothing has begun yet
        from tandem.adapters.cli.exits import INTERRUPTED

        return INTERRUPTED
    finally:
        end_soon()


if __name__ == "__main__":
    sys.exit(main())

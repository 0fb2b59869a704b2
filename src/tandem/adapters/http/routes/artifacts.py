"""What the attempts of a run left, and its bytes."""

import asyncio
import re
from contextlib import ExitStack
from hashlib import sha256
from typing import BinaryIO, Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.telling import present_run, run_of
from tandem.domain.artifact import ArtifactRef
from tandem.domain.errors import NotFound, Refused
from tandem.ports.clock import Clock

PIECE_BYTES: Final = 256 * 1024
PIECE_MS: Final = 60_000
_OCTETS: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_SAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


async def list_artifacts(call: Call) -> Response:
    """List what the attempts of a run left, oldest first."""
    run_id = run_of(call)
    view = await call.service.store.load(run_id, tenant=call.tenant)
    found = call.service.store.list_artifacts(run_id, tenant=call.tenant)
    listed = [
        {
            "node_id": view.plan.nodes[each.node_no].node_id,
            "attempt": each.attempt,
            "validity": each.validity.value,
            **msgspec.to_builtins(each.ref),
        }
        for each in found
    ]
    return answer({"run_id": run_id, "artifacts": listed, "count": len(listed)})


async def download(call: Call) -> Response:
    """Send the bytes of one artifact of the run, or a part of them; never to be shown in a page."""
    ref = _ref(call, call.path("digest"))
    headers = {
        "content-disposition": f'attachment; filename="{_file_name(ref)}"',
        "accept-ranges": "bytes",
        "etag": f'"{ref.digest}"',
        "content-security-policy": "sandbox; default-src 'none'",
    }
    size = ref.size_bytes
    asked = call.request.headers
    # Whoever has a part of something else is sent everything (RFC 9110, 13.1.5).
    is_same = asked.get("if-range", headers["etag"]).strip() == headers["etag"]
    span = _span(asked.get("range", ""), size) if is_same else None
    first, past = span or (0, size)
    if span is not None:
        if first >= past:
            raise HttpError(
                "RANGE_NOT_THERE",
                f"the artifact has {size} bytes, and none of them are asked for",
                headers={"content-range": f"bytes */{size}", "accept-ranges": "bytes"},
            )
        headers["content-range"] = f"bytes {first}-{past - 1}/{size}"
    status = 200 if span is None else 206
    if ref.path:
        headers["content-length"] = str(past - first)
        file = await _verified(call, ref)
        return _Sent(file, first, past, status=status, headers=headers, clock=call.service.clock)
    content = _content(call, ref)
    return Response(content[first:past], status, headers, media_type=_OCTETS)


class _Sent(Response):
    """A part of a file, sent piece by piece: it may be larger than the memory."""

    def __init__(
        self,
        file: BinaryIO,
        first: int,
        past: int,
        *,
        status: int,
        headers: dict[str, str],
        clock: Clock,
    ) -> None:
        super().__init__(None, status, headers, media_type=_OCTETS)
        self._file = file
        self._first = first
        self._left = past - first
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that takes nothing for a minute is left."""
        with self._file as file:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            file.seek(self._first)
            while self._left and scope["method"] != "HEAD":
                piece = file.read(min(PIECE_BYTES, self._left))
                if not piece:
                    return  # it was cut meanwhile; the client misses what was announced
                self._left -= len(piece)
                try:
                    async with self._clock.deadline(PIECE_MS):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _ref(call: Call, name: str) -> ArtifactRef:
    run = present_run(call)
    for each in call.service.store.list_artifacts(run.run_id, tenant=call.tenant):
        if each.ref.digest == name:
            return each.ref
    raise NotFound(f"run {run.run_id} has no artifact {name[:100]}", code="ARTIFACT_NOT_FOUND")


def _content(call: Call, ref: ArtifactRef) -> bytes:
    """Return the bytes of an output, which has a bound, as the digest says."""
    try:
        return call.service.artifacts.get(call.tenant, ref)
    except NotFound as gone:
        raise NotFound(str(gone), code="ARTIFACT_NOT_FOUND") from gone


async def _verified(call: Call, ref: ArtifactRef) -> BinaryIO:
    """Open the file of an artifact once it was read and has the digest; others go on meanwhile.

    Raises:
        NotFound: it is gone, or is another one now.
    """
    changed = NotFound(
        f"the artifact {ref.name} is gone or was changed since: it is not {ref.digest} any more",
        code="ARTIFACT_NOT_FOUND",
    )
    try:
        file = call.service.files.open_file(present_run(call).workspace, ref.path)
    except (NotFound, Refused):
        raise changed from None
    with ExitStack() as stack:
        stack.enter_context(file)
        hashed, size = sha256(), 0
        # A file that has grown is another one, however it begins.
        while size <= ref.size_bytes and (piece := file.read(PIECE_BYTES)):
            hashed.update(piece)
            size += len(piece)
            await asyncio.sleep(0)
        if f"sha256:{hashed.hexdigest()}" != ref.digest:
            raise changed
        stack.pop_all()
    return file


def _file_name(ref: ArtifactRef) -> str:
    name = _SAFE.sub("-", (ref.path or ref.name).rpartition("/")[2]).strip("-.")
    return name[:100] or "artifact"


def _span(header: str, size: int) -> tuple[int, int] | None:
    """Return what part of the bytes a range means, None for all of them (RFC 9110, 14.2).

    Several ranges at once, and what is no range of bytes, are answered with everything.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size if int(last) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


_BASE: Final = "/automations/v2/runs/{run_id}/artifacts"
_CODES: Final = {"not_found": "AUTOMATION_V2_RUN_NOT_FOUND"}

ROUTES = (
    Endpoint(
        method="GET",
        path=_BASE,
        handler=list_artifacts,
        says="List what the attempts of a run left, oldest first.",
        answers="run_id, artifacts[], count",
        codes=_CODES,
    ),
    Endpoint(
        method="GET",
        path=f"{_BASE}/{{digest}}",
        handler=download,
        says="Send the bytes of an artifact, with `Range` a part of them; the digest is checked.",
        answers="the bytes",
        media_type="application/octet-stream",
        codes=_CODES,
        errors=("ARTIFACT_NOT_FOUND", "RANGE_NOT_THERE"),
    ),
)

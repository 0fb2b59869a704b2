"""What the attempts of a run left, and its bytes."""

import re
from typing import Final

import msgspec
from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer
from tandem.adapters.http.telling import present_run, run_of
from tandem.domain.artifact import ArtifactRef
from tandem.domain.errors import NotFound, Refused
from tandem.domain.json import digest

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
    content = _content(call, ref)
    headers = {
        "content-disposition": f'attachment; filename="{_file_name(ref)}"',
        "accept-ranges": "bytes",
        "etag": f'"{ref.digest}"',
        "content-security-policy": "sandbox; default-src 'none'",
    }
    span = _span(call.request.headers.get("range", ""), len(content))
    if span is None:
        return Response(content, headers=headers, media_type="application/octet-stream")
    first, past = span
    if first >= past:
        headers["content-range"] = f"bytes */{len(content)}"
        return Response(status_code=416, headers=headers)
    headers["content-range"] = f"bytes {first}-{past - 1}/{len(content)}"
    return Response(content[first:past], 206, headers, media_type="application/octet-stream")


def _ref(call: Call, name: str) -> ArtifactRef:
    run = present_run(call)
    for each in call.service.store.list_artifacts(run.run_id, tenant=call.tenant):
        if each.ref.digest == name:
            return each.ref
    raise NotFound(f"run {run.run_id} has no artifact {name[:100]}", code="ARTIFACT_NOT_FOUND")


def _content(call: Call, ref: ArtifactRef) -> bytes:
    """Return the bytes, from the store of artifacts or from the workspace, as the digest says."""
    if not ref.path:
        try:
            return call.service.artifacts.get(call.tenant, ref)
        except NotFound as gone:
            raise NotFound(str(gone), code="ARTIFACT_NOT_FOUND") from gone
    changed = NotFound(
        f"the artifact {ref.name} is gone or was changed since: it is not {ref.digest} any more",
        code="ARTIFACT_NOT_FOUND",
    )
    try:
        # One byte more than it had tells a file that has grown.
        content = call.service.files.read_bytes(
            present_run(call).workspace, ref.path, bytes_max=ref.size_bytes + 1
        )
    except (NotFound, Refused):
        raise changed from None
    if digest(content) != ref.digest:
        raise changed
    return content


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
        errors=("ARTIFACT_NOT_FOUND",),
    ),
)

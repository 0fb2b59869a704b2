"""Whether the server lives, and where."""

from starlette.responses import Response

from tandem.adapters.http.call import Call, Endpoint, answer


async def health(call: Call) -> Response:
    """Answer from the first moment on, without a token (http-api 2.1)."""
    return answer({"healthy": True, "ready": call.site.is_ready})


async def workspace(call: Call) -> Response:
    """Tell the folder that the server was started in."""
    return answer({"workspace_root": call.service.workspace_root})


ROUTES = (
    Endpoint(
        method="GET",
        path="/global/health",
        handler=health,
        says="Tell whether the server lives and whether the engine is open.",
        answers="healthy, ready",
    ),
    Endpoint(
        method="GET",
        path="/global/workspace",
        handler=workspace,
        says="Tell the folder that the server was started in.",
        answers="workspace_root",
    ),
)

"""`tandem serve` with two routes more that never come to an end by themselves.

`/polite` says goodbye when the server is about to end, as the streams of ours do; `/rude` does not.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from tandem.__main__ import main
from tandem.adapters.http import app, policy
from tandem.adapters.http.call import Call, Endpoint
from tandem.domain.caller import Scope


def stream(parts: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(parts, media_type="text/event-stream")


async def polite(call: Call) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        await call.site.leaving.wait()
        yield b": goodbye\n\n"

    return stream(parts())


async def rude(_: Call) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        await asyncio.Event().wait()

    return stream(parts())


OWN = tuple(
    Endpoint(method="GET", path=f"/{handler.__name__}", handler=handler, says="", answers="")
    for handler in (polite, rude)
)

if __name__ == "__main__":
    app.OWN = (*app.OWN, *OWN)  # type: ignore[misc]
    policy.POLICY.update(  # type: ignore[attr-defined]
        {endpoint.name: Scope.VIEWER for endpoint in OWN}
    )
    sys.exit(main())

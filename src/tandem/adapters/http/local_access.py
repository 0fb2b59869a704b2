"""Who asks while nothing but the token of the environment is known: before the store is open."""

from collections.abc import Mapping
from hmac import compare_digest

import msgspec

from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.headers import ROOT_TOKEN_ID, actor_of, presented
from tandem.domain.caller import LOCAL_CALLER, Caller
from tandem.domain.errors import AuthRequired
from tandem.domain.token import read_token_id


class LocalAccess:
    """One token that may do everything; without one, everybody may (D3)."""

    def __init__(self, token: str = "") -> None:
        self._token = token.encode()

    def still_holds(self, caller: Caller) -> bool:
        """See `Access.still_holds`; the one token stays as long as the process."""
        return bool(caller)

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        """See `Access.caller_of`; of a token that the store may know nothing is said."""
        caller = LOCAL_CALLER
        if self._token:
            text = presented(headers)
            if not compare_digest(text.encode(), self._token):
                if read_token_id(text) is not None:
                    raise HttpError(
                        "ENGINE_STARTING", "the store, which knows this token, is not open yet"
                    )
                raise AuthRequired("a token is needed, and none that is known came")
            caller = msgspec.structs.replace(caller, source="api_token", token_id=ROOT_TOKEN_ID)
        return actor_of(caller, headers)

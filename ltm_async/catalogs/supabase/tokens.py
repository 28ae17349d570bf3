"""The JWT that requests are sent with, and a new one when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...buckets import is_printable
from ...errors import AccessDeniedError, LTMError, UnavailableError
from .options import NAME, SERVICE_ROLE, AccessToken, ClientKey, is_jwt, role_of


class Tokens:
    """One token for all requests of a client, asked for again once it was refused.

    When it ends is left to the server to say, for this process's clock may be wrong.
    """

    def __init__(self, key: ClientKey) -> None:
        given: AccessToken | None = key.access_token
        if given is None and is_jwt(key.key):
            given = key.key
        self._ask = given if callable(given) else None
        self._token = given if isinstance(given, str) else None
        # Holds for "there is none, so ask for one".
        self._lock = asyncio.Lock()

    async def get(self) -> str | None:
        """The token to send, or None for none."""
        if self._token is not None or self._ask is None:
            return self._token
        async with self._lock:
            if self._token is None:
                self._token = await _asked(self._ask)
            return self._token

    def renews(self, refused: str | None) -> bool:
        """Forget *refused*, and say whether there may be another."""
        if self._ask is None:
            return False
        if self._token == refused:
            self._token = None
        return True


async def _asked(ask: Callable[[], Awaitable[object]]) -> str:
    try:
        token = await ask()
    except LTMError:
        raise
    except Exception as exc:
        # It is not ours, and whatever it asked may be down.
        raise UnavailableError(
            f"{NAME}: access_token raised {type(exc).__name__}", store=NAME
        ) from exc
    if not isinstance(token, str) or not is_printable(token):
        raise AccessDeniedError(f"{NAME}: access_token returned no JWT", store=NAME)
    if role_of(token) == SERVICE_ROLE:
        raise AccessDeniedError(
            f"{NAME}: access_token returned a JWT of service_role, which sees the rows of "
            "every user",
            store=NAME,
        )
    return token

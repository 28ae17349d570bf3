"""Access tokens: read from files what they are fetched with, and fetched before they end."""

from __future__ import annotations

import asyncio
import io
import json
import time
from typing import Any, cast

import aiohttp
import jwt
from gcloud.aio.auth import AioSession, Token

from ...errors import AccessDeniedError, ConfigError, StoreError, UnavailableError
from .options import Options

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
FETCH_TIMEOUT_S = 10
RENEW_BEFORE_S = 225.0
"""Before its end: Google's metadata server gives a new one from 300 s before
(https://cloud.google.com/compute/docs/metadata/querying-metadata)."""
USABLE_UNTIL_S = 5.0
"""Before its end: so long may a request be on its way."""


def read_credentials(options: Options) -> Token:
    """What to fetch tokens with; it blocks, and is for a thread.

    Raises:
        ConfigError: The file of *options* cannot be used.
    """
    if options.service_file is None:
        return Token(scopes=[SCOPE])
    try:
        with open(options.service_file, encoding="utf-8") as file:
            text = file.read()
    except OSError as exc:
        raise ConfigError(f"service_file cannot be read: {exc.strerror or 'no file'}") from exc
    except UnicodeDecodeError:
        raise ConfigError("service_file is no file of credentials") from None
    try:
        # Left to itself, the driver takes a file that it does not understand for none at all.
        if json.loads(text)["type"]:
            return Token(service_file=io.StringIO(text), scopes=[SCOPE])
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # the exception may quote the file, which holds a private key
    raise ConfigError("service_file is no file of credentials")


async def stay(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware of aiohttp that follows no redirect: it would take the credentials along."""
    reply = await handler(request)
    if 300 <= reply.status < 400:
        reply.close()
        raise aiohttp.ClientResponseError(reply.request_info, (), status=reply.status)
    return reply


class FixedToken:
    """A token as it was given, or none."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def get(self) -> str | None:
        return self._token

    def discard(self, token: str) -> None:
        """There is no other."""

    async def aclose(self) -> None:
        """Nothing is open."""


class Tokens:
    """The token of some credentials, renewed in time; belongs to the loop of *session*.

    gcloud-aio would try five times with waits of minutes, and one caller that was cancelled while
    it waited would have cancelled all others.
    """

    def __init__(self, credentials: Token, session: aiohttp.ClientSession) -> None:
        # Where requests is installed as well, type checkers take its Session for what is wanted.
        credentials.session = AioSession(cast("Any", session))
        self._credentials = credentials
        self._session = session
        self._value = ""
        self._lasts_s = 0.0
        self._since = (0.0, 0.0)
        self._renewal: asyncio.Task[StoreError | None] | None = None

    async def get(self) -> str:
        """A token that is valid; it is renewed in the background while it still is.

        Raises:
            AccessDeniedError: The credentials are refused, or there are none.
            UnavailableError: No token could be fetched.
        """
        left_s = self._left_s()
        if left_s < min(RENEW_BEFORE_S, self._lasts_s / 10) or left_s < USABLE_UNTIL_S:
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew())
            if left_s < USABLE_UNTIL_S:
                await _finished(self._renewal)
        return self._value

    def discard(self, token: str) -> None:
        """Do not use *token* again: it was refused."""
        if token == self._value:
            self._lasts_s = 0.0

    async def aclose(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._session.close()

    def _left_s(self) -> float:
        # Neither clock goes on in every kind of sleep.
        monotonic, wall = self._since
        gone_s = max(time.monotonic() - monotonic, time.time() - wall)
        return self._lasts_s - gone_s

    async def _renew(self) -> StoreError | None:
        """Fetch a token, or say why there is none."""
        try:
            since = time.monotonic(), time.time()
            fetched: Any = await self._credentials.refresh(timeout=FETCH_TIMEOUT_S)
            self._value, self._lasts_s = str(fetched.value), float(fetched.expires_in)
            self._since = since
        except (aiohttp.ClientError, OSError) as exc:
            return _failed(exc)
        except (ValueError, LookupError, TypeError, AttributeError, jwt.PyJWTError):
            # The driver did not expect it; the exception may quote what was sent or answered.
            return AccessDeniedError(
                "gcs: no access token: the credentials, or the reply to them, cannot be used",
                store="gcs",
            )
        return None


async def _finished(renewal: asyncio.Task[StoreError | None]) -> None:
    """Wait for a task that others wait for, too; whoever is cancelled leaves it to them."""
    await asyncio.wait([renewal])
    if renewal.cancelled():
        raise UnavailableError("gcs: no access token: the store was closed", store="gcs")
    failure = renewal.result()
    if failure is not None:
        raise type(failure)(str(failure), store="gcs")


def _failed(exc: Exception) -> StoreError:
    """Without the driver's exception, which may show the request."""
    if not isinstance(exc, aiohttp.ClientResponseError):
        return UnavailableError(
            f"gcs: no access token: {type(exc).__name__} (where there is no metadata server of "
            "Google's, name a service_file)",
            store="gcs",
        )
    what = f"gcs: no access token: status {exc.status} for these credentials"
    if exc.status in (408, 429) or exc.status >= 500:
        return UnavailableError(what, store="gcs")
    return AccessDeniedError(what, store="gcs")

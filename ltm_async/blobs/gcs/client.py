"""gcloud-aio's client over connections of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import aiohttp
from gcloud.aio.storage import Storage

from .checksums import best_checksum
from .credentials import FixedToken, Tokens, stay
from .options import Options
from .requests import Requests
from .sending import Sender

if TYPE_CHECKING:
    from gcloud.aio.auth import Token


class Client:
    """Made in a running loop, to which its connections belong.

    Args:
        credentials: What access tokens are fetched with; None sends the one of *options*, if any.
    """

    def __init__(self, options: Options, credentials: Token | None) -> None:
        self._connector = aiohttp.TCPConnector(limit=options.max_connections)
        self._tokens: Tokens | FixedToken
        if credentials is None:
            self._tokens = FixedToken(options.token)
        else:
            self._tokens = Tokens(credentials, self._session(stay))
        self._storage_session = self._session(Sender(self._tokens).send)
        # With an api_root it sends no token of its own; without a token it would read files.
        storage = Storage(
            session=cast("Any", self._storage_session),
            token=cast("Token", self._tokens),
            api_root=options.endpoint_url,
        )
        self.requests = Requests(storage, options.endpoint_url, best_checksum())

    async def authenticate(self) -> None:
        """Have a valid token, if one is needed."""
        await self._tokens.get()

    async def aclose(self) -> None:
        try:
            await self._tokens.aclose()
            await self._storage_session.close()
        finally:
            await self._connector.close()

    def _session(self, middleware: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            middlewares=[middleware],
        )

"""One client of PostgREST: each request calls one function, which is one transaction."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx2

from ...errors import StoreError, UnavailableError
from .failures import Reply, result_of, sending
from .options import NAME, ClientKey
from .tokens import Tokens

CONNECT_TIMEOUT_S = 10.0
"""All other waiting ends with the call's deadline."""
IDLE_LIFETIME_S = 20.0
"""Below the 30 s after which PostgREST itself drops a connection."""
MAX_REPLY_BYTES = 256 * 1024 * 1024


class Client:
    """Made in a running loop, to which its connections belong."""

    def __init__(self, key: ClientKey, tls: ssl.SSLContext | Literal[False]) -> None:
        self._tokens = Tokens(key)
        self._rpc_url = f"{key.rest_url}/rpc/"
        self._http = httpx2.AsyncClient(
            verify=tls,
            # Neither proxies nor a .netrc of the environment, which could send a token elsewhere.
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(
                max_connections=key.max_connections,
                max_keepalive_connections=key.max_connections,
                keepalive_expiry=IDLE_LIFETIME_S,
            ),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "Content-Type": "application/json",
                "Content-Profile": key.schema,
                "User-Agent": "ltm-async",
                "apikey": key.key,
            },
        )

    async def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        keys: Sequence[str] = (),
        versions: Sequence[int | None] = (),
    ) -> Any:
        """What *function* returns; *keys* and *versions* are for a conflict's error."""
        body = json.dumps(arguments, separators=(",", ":")).encode()
        token = await self._tokens.get()
        reply = await self._post(function, body, token)
        if reply.status == 401 and self._tokens.renews(token):
            # It was not let in, so this is the first time that it is carried out.
            reply = await self._post(function, body, await self._tokens.get())
        return result_of(reply, keys, versions)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _post(self, function: str, body: bytes, token: str | None) -> Reply:
        if self._http.is_closed:
            raise UnavailableError(f"{NAME}: the client is closed", store=NAME)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        parts: list[bytes] = []
        size = 0
        with sending():
            async with self._http.stream(
                "POST", self._rpc_url + function, content=body, headers=headers
            ) as reply:
                async for part in reply.aiter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > MAX_REPLY_BYTES:
                        raise StoreError(
                            f"{NAME}: the reply has over {MAX_REPLY_BYTES} bytes: ask for less at "
                            "once, by a smaller batch_size",
                            store=NAME,
                        )
                return Reply(reply.status_code, reply.headers, b"".join(parts))

"""Sends what the driver has signed: once, to the host it was signed for, and to no other."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import aiohttp
from aiobotocore.awsrequest import AioAWSResponse
from yarl import URL

from ...errors import OutcomeUnknownError, StoreError, UnavailableError

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
"""Without a byte of the reply, once the request is sent."""
KEEP_ALIVE_S = 12.0
"""As the driver has it: shorter than what servers grant an idle connection."""
CLOSE_TIMEOUT_S = 5.0


class Sender:
    """Takes the place of the driver's own HTTP session, as a handler of its ``before-send``.

    That session follows redirects to wherever they lead, with the session token and the body, and
    sends a request again when a connection breaks. It also makes an SSL context for each
    client, at 20 ms.
    """

    def __init__(self, *, context: ssl.SSLContext, max_connections: int, proxy: str | None) -> None:
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max_connections, keepalive_timeout=KEEP_ALIVE_S, ssl=context
            ),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
            auto_decompress=False,
            middlewares=(_once,),
        )

    async def send(self, request: Any, **_: Any) -> AioAWSResponse:
        """The response to the driver's *request*; a StoreError says what became of it.

        The body is read here unless the caller streams it.
        """
        headers = {name: _text(value) for name, value in request.headers.items()}
        headers["Accept-Encoding"] = "identity"
        headers.pop("Expect", None)  # to wait for leave to send costs a round trip for each put
        try:
            reply = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=headers,
                data=request.body,
                allow_redirects=False,
                proxy=self._proxy,
            )
            response = AioAWSResponse(
                request.url,
                reply.status,
                {name.lower(): value for name, value in reply.headers.items()},
                reply,
            )
            if not request.stream_output:
                await response.content
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch) as exc:
            raise StoreError(
                f"s3: the server's certificate is not trusted: {exc}; "
                "ca_file names the authorities that are",
                store="s3",
            ) from exc
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ClientHttpProxyError,
            aiohttp.ConnectionTimeoutError,
        ) as exc:
            raise UnavailableError(f"s3: {_in_words(exc)}", store="s3") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise _lost(exc) from exc
        return response

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._session.close()


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again whose connection broke."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise _lost(exc) from exc


def _lost(exc: BaseException) -> OutcomeUnknownError:
    return OutcomeUnknownError(f"s3: the reply was lost: {_in_words(exc)}", store="s3")


def _in_words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""What every request to the store passes through: sent once, with a token, to no other host."""

from __future__ import annotations

import aiohttp

from ...errors import OutcomeUnknownError, StoreError, UnavailableError
from .credentials import FixedToken, Tokens
from .replies import RefusedError, first, in_words

MOST_WORDS_BYTES = 64 * 1024
"""Of a refusal that are read."""


class Sender:
    """A middleware of aiohttp, below gcloud-aio: it decides what a failure means.

    Otherwise aiohttp would send a GET or DELETE again whose connection broke, and would follow
    redirects to wherever they lead; and gcloud-aio's exceptions carry the request's headers.
    """

    def __init__(self, tokens: Tokens | FixedToken) -> None:
        self._tokens = tokens

    async def send(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A reply that is no refusal.

        Raises:
            RefusedError: The server answered with a redirect or an error.
            StoreError: There is no answer.
        """
        token = await self._tokens.get()
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        try:
            reply = await handler(request)
            if reply.status < 300:
                return reply
            async with reply:
                body = await first(reply.content, MOST_WORDS_BYTES)
        except aiohttp.ClientResponseError:
            pass  # it shows the request's headers, so nothing is raised from it
        except (aiohttp.ClientError, OSError) as exc:
            raise _unanswered(exc) from exc
        else:
            if reply.status == 401 and token is not None:
                self._tokens.discard(token)
            raise RefusedError.of(reply.status, reply.headers, body, secret=token)
        raise OutcomeUnknownError("gcs: the reply is no HTTP", store="gcs")


def _unanswered(exc: Exception) -> StoreError:
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        return StoreError(
            f"gcs: no trusted TLS connection: {in_words(exc)}; SSL_CERT_FILE names the authorities "
            "to trust",
            store="gcs",
        )
    if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UnavailableError(f"gcs: {in_words(exc)}", store="gcs")
    return OutcomeUnknownError(f"gcs: the reply was lost: {in_words(exc)}", store="gcs")

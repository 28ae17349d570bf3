"""Where access tokens for a GCS come from: Google's token endpoint and a metadata server."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from functools import cache
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from .gcs import GcsServer
from .loop_thread import LoopThread

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCOUNT = "tester@project.iam.gserviceaccount.com"
CLIENT = {"client_id": "tester", "client_secret": "client-c4n4ry", "refresh_token": "fresh-c4n4ry"}
"""What an authorized user has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Issued:
    """A token that was given out, and what it was asked for with."""

    token: str
    claims: dict[str, Any]
    """Of the assertion of a service account."""


class TokenServer:
    """Gives tokens that *gcs* accepts to whom it knows; any port may stand before its own."""

    def __init__(self, gcs: GcsServer) -> None:
        self.gcs = gcs
        self.issued: list[Issued] = []
        self.lifetime_s = 3_600
        self._thread = LoopThread("ltm-test-tokens")
        self._runner, self.port = self._thread.run(self._start())

    def service_file(self, folder: pathlib.Path, port: int, **changes: object) -> pathlib.Path:
        """The file of a service account that asks at *port* for its tokens."""
        content = {
            "type": "service_account",
            "project_id": "project",
            "private_key": _private_key(),
            "client_email": ACCOUNT,
            "token_uri": f"http://127.0.0.1:{port}/token",
        }
        file = folder / f"service-{port}-{len(changes)}.json"
        file.write_text(json.dumps({**content, **changes}))
        return file

    def user_file(self, folder: pathlib.Path, port: int) -> pathlib.Path:
        """The same of a user, as ``gcloud auth application-default login`` writes it."""
        uri = f"http://127.0.0.1:{port}/token"
        file = folder / "user.json"
        file.write_text(json.dumps({"type": "authorized_user", "token_uri": uri, **CLIENT}))
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.run(self._runner.cleanup())
        self._thread.close()

    async def _start(self) -> tuple[web.AppRunner, int]:
        app = web.Application()
        app.add_routes(
            [
                web.post("/token", self._exchange),
                web.get(
                    "/computeMetadata/v1/instance/service-accounts/default/token", self._metadata
                ),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, int(runner.addresses[0][1])

    async def _exchange(self, request: web.Request) -> web.Response:
        """https://developers.google.com/identity/protocols/oauth2/service-account#httprest."""
        form = await request.post()
        if form.get("grant_type") == "refresh_token":
            if any(form.get(name) != value for name, value in CLIENT.items()):
                return _refused("invalid_client")
            return self._issue({})
        if form.get("grant_type") != JWT_BEARER:
            return _refused("unsupported_grant_type")
        try:
            claims = jwt.decode(
                str(form["assertion"]),
                _key().public_key(),
                algorithms=["RS256"],
                options={"verify_aud": False, "require": ["aud", "exp", "iat", "iss", "scope"]},
            )
        except jwt.InvalidTokenError:
            return _refused("invalid_grant")
        return self._issue(claims)

    async def _metadata(self, request: web.Request) -> web.Response:
        """https://cloud.google.com/compute/docs/metadata/querying-metadata."""
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403)
        return self._issue({})

    def _issue(self, claims: dict[str, Any]) -> web.Response:
        token = self.gcs.new_token()
        self.issued.append(Issued(token, claims))
        return web.json_response(
            {"access_token": token, "expires_in": self.lifetime_s, "token_type": "Bearer"}
        )


def _refused(error: str) -> web.Response:
    return web.json_response({"error": error}, status=400)


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _private_key() -> str:
    pem = _key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode()

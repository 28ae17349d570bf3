"""PostgreSQL of Debian's packages, the newest there is."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Iterable

from .need import missing
from .process import Server, free_port, new_folder

DEBIAN = pathlib.Path("/usr/lib/postgresql")
HOW_TO_GET = "apt-get install postgresql, or make test as root"
SYSTEM_USER = "postgres"
SUPERUSER = "postgres"
SETTINGS = (
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    # What is committed survives the server's end, if not the machine's.
    "fsync=off",
    "full_page_writes=off",
)
RUN = f"""\
[ -d data ] || "$0/initdb" -D data -U {SUPERUSER} -A trust -E UTF8 --locale=C.UTF-8 \
    --no-sync --no-instructions || exit
exec "$0/postgres" -D data "$@"
"""


def server_user() -> str:
    """PostgreSQL and PgBouncer refuse to run as root."""
    return SYSTEM_USER if os.geteuid() == 0 else ""


def programs(versions: Iterable[pathlib.Path] | None = None) -> pathlib.Path | None:
    """The folder with the programs of the highest version, or None."""
    found = DEBIAN.glob("*/bin") if versions is None else versions
    usable = [folder for folder in found if (folder / "initdb").exists()]
    if usable:
        return max(usable, key=lambda folder: [int(n) for n in folder.parent.name.split(".")])
    on_path = shutil.which("initdb")
    return pathlib.Path(on_path).resolve().parent if on_path else None


class Postgres(Server):
    """A PostgreSQL of its own, which lets in whoever comes from this machine.

    Args:
        settings: Instead of those of the tests, where they have the same name.
        bin_folder: Whose programs; None for Debian's.
    """

    def __init__(self, *settings: str, bin_folder: pathlib.Path | None = None) -> None:
        bin_folder = bin_folder or programs()
        if bin_folder is None:
            missing("postgres", HOW_TO_GET)
        user, port = server_user(), free_port()
        folder = new_folder("postgres", user=user)
        place = (f"port={port}", f"unix_socket_directories={folder}")
        is_ready = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        super().__init__(
            "postgres",
            ["/bin/sh", "-c", RUN, str(bin_folder)]
            + [part for setting in (*place, *SETTINGS, *settings) for part in ("-c", setting)],
            folder=folder,
            port=port,
            user=user,
            ready=lambda: subprocess.run(is_ready, check=False).returncode == 0,
            stop_with=signal.SIGINT,  # does not wait for its clients
        )
        self.programs = bin_folder

    @property
    def dsn(self) -> str:
        """The database ``postgres`` as a superuser."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/postgres"

    def restart(self, stop_with: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it, without a checkpoint unless another signal is given, and start it again."""
        super().restart(stop_with)

"""A link that takes time: what goes to a port of this machine and back comes later.

``python -m bench.links PORT MS`` serves one in a process of its own, so that it shares no loop
with what is measured, and prints its port. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

from bench.processes import ROOT

PIECE = 65_536


@contextlib.contextmanager
def delayed(port: int, round_trip_ms: float) -> Iterator[int]:
    """The port where *port* is *round_trip_ms* further away; without any, *port* itself."""
    if not round_trip_ms:
        yield port
        return
    command = [sys.executable, "-m", "bench.links", str(port), str(round_trip_ms)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as link:
        assert link.stdout is not None
        yield int(link.stdout.readline())
        link.communicate()


async def _serve(port: int, delay_s: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pass_on(reader, server, delay_s), _pass_on(answers, writer, delay_s))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=512)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Each piece *delay_s* after it came, however many are under way: it has all the bandwidth."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            loop.call_later(delay_s, writer.write, data)
    loop.call_later(delay_s, writer.close)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 2e3))

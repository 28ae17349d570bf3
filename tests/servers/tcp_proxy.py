"""A TCP proxy on loopback that breaks connections as it is told, while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import struct
from typing import Self

from .loop_thread import LoopThread

RST_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TcpFaults:
    """What a proxy does to its connections; *up* is towards the server.

    Bytes are counted for each connection and direction from when these faults were set.
    """

    refuse: bool = False
    """New connections are reset at once."""
    latency_s: float = 0.0
    """For every piece, in both directions."""
    swallow_up: bool = False
    """What the client sends gets lost; nobody hears of it."""
    swallow_down: bool = False
    reset_up_after: int | None = None
    """So many bytes are delivered to the server, then both ends are reset."""
    reset_down_after: int | None = None
    """The same for the client. With 0 the server has done what it was asked, and its reply is
    lost."""


NO_FAULTS = TcpFaults()
BLACK_HOLE = TcpFaults(swallow_up=True, swallow_down=True)
LOST_REPLY = TcpFaults(reset_down_after=0)


class TcpProxy:
    """Passes on to *port* of this machine what comes to its own ``port``, through ``faults``.

    It works in a thread of its own; ``faults`` may be set from any.
    """

    def __init__(self, port: int) -> None:
        self.faults = NO_FAULTS
        self.connections = 0
        """Accepted so far, refused ones included."""
        self.round_trips = 0
        """How often something was sent to the server after it had said something."""
        self._server_spoke = True
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = LoopThread("ltm-test-tcp-proxy")
        self._server = self._thread.run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def open_connections(self) -> int:
        return len(self._open) // 2

    def reset_all(self) -> None:
        """Reset every open connection, at both ends."""
        self._thread.call(self._reset_all)

    def _reset_all(self) -> None:
        for end in list(self._open):
            reset(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.run(self._close())
        self._thread.close()

    async def _close(self) -> None:
        self._server.close()
        self._reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.faults.refuse:
            return reset(client)
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return reset(client)
        ends = {client, server}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, server, up=True))
                group.create_task(self._pass_on(answers, client, up=False))
        except* (OSError, _CutError):
            for end in ends:
                reset(end)
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        counted, passed = self.faults, 0
        while data := await reader.read(65_536):
            if self.faults.latency_s:
                await asyncio.sleep(self.faults.latency_s)
            faults = self.faults
            if faults is not counted:
                counted, passed = faults, 0
            if faults.swallow_up if up else faults.swallow_down:
                continue
            cut = faults.reset_up_after if up else faults.reset_down_after
            if cut is not None and passed + len(data) > cut:
                writer.write(data[: cut - passed])
                with contextlib.suppress(OSError):
                    await writer.drain()
                await asyncio.sleep(0.01)  # for what was written to arrive before the reset
                raise _CutError
            passed += len(data)
            if up and self._server_spoke:
                self.round_trips += 1
            self._server_spoke = not up
            writer.write(data)
            await writer.drain()
        writer.write_eof()  # the other direction may go on


class _CutError(Exception):
    pass


def reset(end: asyncio.StreamWriter) -> None:
    sock = end.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_AT_CLOSE)
    end.transport.abort()

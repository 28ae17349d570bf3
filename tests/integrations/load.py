"""Load for a server on this machine, in a process of its own: it says in JSON what it got.

python load.py PORT REQUESTS CLIENTS             answered requests, on connections kept open
python load.py PORT REQUESTS CLIENTS cancelled   requests whose client leaves before the answer
"""

from __future__ import annotations

import asyncio
import collections
import json
import random
import sys

TIMEOUT_S = 30.0


async def answered(port: int, paths: list[str], told: collections.Counter[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while paths:
        path = paths.pop()
        writer.write(_request(path))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        body = json.loads(await reader.readexactly(length))
        told[head.split()[1].decode() if body.get("counted", True) else "not counted"] += 1
    writer.close()
    await writer.wait_closed()


async def cancelled(port: int, paths: list[str], told: collections.Counter[str]) -> None:
    while paths:
        path = paths.pop()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request(path))
        await writer.drain()
        await asyncio.sleep(random.random() * 0.02)
        writer.transport.abort()
        told["cancelled"] += 1


def _request(path: str) -> bytes:
    method = "POST" if path.startswith("/visits/") else "GET"
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()


async def main(port: int, requests: int, clients: int, kind: str = "answered") -> None:
    told: collections.Counter[str] = collections.Counter()
    paths = [f"/reports/city-{n % 40}" if n % 2 else f"/visits/{n % 200}" for n in range(requests)]
    client = cancelled if kind == "cancelled" else answered
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(port, paths, told))
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    numbers = [int(number) for number in sys.argv[1:4]]
    asyncio.run(main(numbers[0], numbers[1], numbers[2], *sys.argv[4:]))

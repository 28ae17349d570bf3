"""Azurite, an Azure Blob Storage that checks signatures and permissions."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import pathlib
import re
import shutil
import urllib.parse
import uuid
from datetime import UTC, datetime, timedelta

from .need import missing
from .process import Server, free_port, new_folder

PACKAGE = pathlib.Path(__file__).parents[2] / ".npm-servers/node_modules/azurite"
COLLECTS_NOTHING = pathlib.Path(__file__).with_name("azurite-collects-nothing.js")
HOW_TO_GET = "make servers"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, known to everybody."""
_NAME_AND_MD5 = re.compile(r"<Name>([^<]*)</Name>.*<Content-MD5>([^<]+)</Content-MD5>", re.DOTALL)
VERSION = "2021-08-06"


class Azurite(Server):
    """A storage account whose blobs are in memory, and requests to it around every client."""

    account_name = ACCOUNT
    account_key = KEY

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None or not PACKAGE.exists():
            missing("azure", HOW_TO_GET)
        port, folder = free_port(), new_folder("azure")
        command: list[str | pathlib.Path] = [node, "--require", COLLECTS_NOTHING]
        command += [PACKAGE / "dist/src/blob/main.js"]
        command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"]
        command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        super().__init__("azure", command, folder=folder, port=port)
        self.endpoint_url = self.endpoint_behind(port)

    @staticmethod
    def endpoint_behind(port: int) -> str:
        """The account's endpoint where *port* of this machine, such as a proxy's, leads to it."""
        return f"http://127.0.0.1:{port}/{ACCOUNT}"

    def new_container(self) -> str:
        """The name of a new, empty container."""
        name = f"test-{uuid.uuid4().hex}"
        status, body = self._ask("PUT", f"/{name}", {"restype": "container"})
        assert status == 201, body
        return name

    def put(self, container: str, name: str, data: bytes) -> None:
        path = f"/{container}/{urllib.parse.quote(name)}"
        status, body = self._ask("PUT", path, {}, data, {"x-ms-blob-type": "BlockBlob"})
        assert status == 201, body

    def remove(self, container: str, name: str) -> None:
        status, body = self._ask("DELETE", f"/{container}/{urllib.parse.quote(name)}", {})
        assert status == 202, body

    def read(self, container: str, name: str) -> bytes | None:
        """A blob's bytes; None when there is none."""
        status, body = self._ask("GET", f"/{container}/{urllib.parse.quote(name)}", {})
        assert status in (200, 404), body
        return body if status == 200 else None

    def names(self, container: str) -> list[str]:
        return [name for name, _ in self.listed(container)]

    def listed(self, container: str) -> list[tuple[str, str]]:
        """The names of all blobs, and the MD5 of each content in base64."""
        listed: list[tuple[str, str]] = []
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list"} | (
                {"marker": marker} if marker else {}
            )
            status, body = self._ask("GET", f"/{container}", query)
            assert status == 200, body
            text = body.decode()
            for blob in text.split("<Blob>")[1:]:
                (found,) = _NAME_AND_MD5.findall(blob)
                listed.append(found)
            found = re.search(r"<NextMarker>([^<]+)</NextMarker>", text)
            if found is None:
                return listed
            marker = found[1]

    def new_sas_token(self, container: str, permissions: str = "rwdl") -> str:
        """A shared access signature for a container, to read, write, delete and list:
        https://learn.microsoft.com/rest/api/storageservices/create-service-sas."""
        expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        place = f"/blob/{ACCOUNT}/{container}"
        fields = [permissions, "", expiry, place, "", "", "https,http", VERSION, "c", *[""] * 7]
        query = {"sv": VERSION, "sr": "c", "sp": permissions, "se": expiry, "spr": "https,http"}
        return urllib.parse.urlencode(query | {"sig": _signed("\n".join(fields))})

    def lease(self, container: str, name: str) -> None:
        """Keep a blob from being deleted."""
        headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "-1"}
        path = f"/{container}/{urllib.parse.quote(name)}"
        status, body = self._ask("PUT", path, {"comp": "lease"}, b"", headers)
        assert status == 201, body

    def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
        ours = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": VERSION}
        ours |= headers or {}
        resource = f"/{ACCOUNT}/{ACCOUNT}{path}"
        length = str(len(body)) if body else ""
        lines = [method, "", "", length, *[""] * 8]
        lines += [f"{name}:{ours[name]}" for name in sorted(ours)]
        lines += [resource, *(f"{name}:{query[name]}" for name in sorted(query))]
        ours["Authorization"] = f"SharedKey {ACCOUNT}:{_signed(chr(10).join(lines))}"
        target = f"/{ACCOUNT}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, target, body or None, ours)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


def _signed(text: str) -> str:
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()

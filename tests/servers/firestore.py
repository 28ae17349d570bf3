"""Google's emulator of Firestore, which comes with the Google Cloud CLI.

It enforces no composite index, takes requests of up to 4 MiB, not 10, and shows a commit document
by document.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import shutil
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ltm_async.catalogs.firestore.documents import Documents

from .loop_thread import LoopThread
from .need import missing
from .process import Server, free_port, new_folder

if TYPE_CHECKING:
    import pytest

VARIABLE = "LTM_FIRESTORE_EMULATOR"
USUAL_PLACES = (
    "/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
    "/usr/share/google-cloud-sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
    "~/google-cloud-sdk/platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
    "~/.cache/firebase/emulators/cloud-firestore-emulator-*.jar",
)
HOW_TO_GET = (
    "install Java 11 or newer and the package google-cloud-cli-firestore-emulator from Google's "
    "apt repository (or run `gcloud components install cloud-firestore-emulator`), or name the "
    f"jar in {VARIABLE}"
)


@contextlib.contextmanager
def grpc_engine() -> Iterator[None]:
    """Keeps gRPC's engine, which else ends with each channel, and leaves its sockets."""
    import grpc.aio

    keeper = LoopThread("ltm-test-grpc")
    keeper.call(grpc.aio.init_grpc_aio)
    yield
    keeper.close()


def reads_between_commits(patched: pytest.MonkeyPatch) -> None:
    """Have each read and commit of this loop wait for the others to end.

    The emulator shows a commit document by document, even to a transaction that only reads, where
    an answer of Firestore's is of one moment: see ``Found``.
    """
    one_at_a_time = asyncio.Lock()

    def alone(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def asked(*args: Any, **kwargs: Any) -> Any:
            async with one_at_a_time:
                return await ask(*args, **kwargs)

        return asked

    for name in ("read", "commit"):
        patched.setattr(Documents, name, alone(getattr(Documents, name)))


def new_project() -> str:
    """The name of a world without documents."""
    return f"demo-{uuid.uuid4().hex[:20]}"


def jar() -> pathlib.Path | None:
    """The emulator named by the environment, or one in its usual places."""
    named = os.environ.get(VARIABLE)
    if named:
        return pathlib.Path(named) if pathlib.Path(named).is_file() else None
    for place in USUAL_PLACES:
        path = pathlib.Path(place).expanduser()
        found = sorted(path.parent.glob(path.name))
        if found:
            return found[-1]
    return None


class Firestore(Server):
    """One emulator; each project in it is a world of its own, there as soon as it is named."""

    def __init__(self) -> None:
        found, java = jar(), shutil.which("java")
        if found is None or java is None:
            missing("firestore", HOW_TO_GET)
        port = free_port()
        super().__init__(
            "firestore",
            [
                java,
                "-Duser.language=en",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Xmx512m",
                "-cp",
                found,
                "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
                "start",
                "--host=127.0.0.1",
                f"--port={port}",
            ],
            folder=new_folder("firestore"),
            port=port,
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def documents(self, project: str, collection: str) -> list[dict[str, Any]]:
        """The fields of every document of a collection, and its ``version``."""
        return documents_at(self.host, project, collection)

    def clear(self, project: str) -> None:
        """Delete every document."""
        url = f"http://{self.host}/emulator/v1/projects/{project}/databases/(default)/documents"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


def documents_at(host: str, project: str, collection: str) -> list[dict[str, Any]]:
    return list(map(_fields, raw_documents(host, project, collection)))


def raw_documents(host: str, project: str, collection: str) -> list[dict[str, Any]]:
    """As REST gives them, so by no driver."""
    query = {"structuredQuery": {"from": [{"collectionId": collection}]}}
    answer = _ask(host, project, ":runQuery", query)
    return [item["document"] for item in answer if "document" in item]


def write_raw(host: str, project: str, collection: str, documents: list[dict[str, Any]]) -> None:
    """Documents of another project, under the same names."""
    home = f"projects/{project}/databases/(default)/documents/{collection}"
    writes = [
        {"update": {"name": f"{home}/{_name(document)}", "fields": document["fields"]}}
        for document in documents
    ]
    if writes:
        _ask(host, project, ":commit", {"writes": writes})


def _ask(host: str, project: str, call: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"http://{host}/v1/projects/{project}/databases/(default)/documents{call}",
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer owner", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _name(document: dict[str, Any]) -> str:
    return str(document["name"]).rpartition("/")[2]


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    updated = datetime.datetime.fromisoformat(document["updateTime"])
    fields = {name: _plain(value) for name, value in document.get("fields", {}).items()}
    return {**fields, "version": round(updated.timestamp() * 1e6)}


def _plain(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return int(content) if kind == "integerValue" else content

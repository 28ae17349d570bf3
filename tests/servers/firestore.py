"""Google's emulator of Firestore, which comes with the Google Cloud CLI.

It enforces no composite index, and takes requests of up to 4 MiB, not 10.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import urllib.request
from typing import Any

from .need import missing
from .process import Server, free_port, new_folder

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
        """The fields of every document of a collection, by REST, so by no driver."""
        query = {"structuredQuery": {"from": [{"collectionId": collection}]}}
        answer = self._ask(project, ":runQuery", query)
        return [_fields(item["document"]) for item in answer if "document" in item]

    def clear(self, project: str) -> None:
        """Delete every document."""
        url = f"http://{self.host}/emulator/v1/projects/{project}/databases/(default)/documents"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()

    def _ask(self, project: str, call: str, body: Any) -> Any:
        url = f"http://{self.host}/v1/projects/{project}/databases/(default)/documents{call}"
        request = urllib.request.Request(
            url,
            data=json.dumps(body).encode(),
            headers={"Authorization": "Bearer owner", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in document.get("fields", {}).items()}


def _plain(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return {"integerValue": int, "nullValue": lambda _: None}.get(kind, lambda given: given)(
        content
    )

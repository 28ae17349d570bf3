"""One run of ``ltm``: the memory it works on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import typer

from .. import doctor
from ..backend import LTMBackend
from ..encryption import Keyring

T = TypeVar("T")

UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@dataclasses.dataclass(slots=True)
class Session:
    """What one run of ``ltm`` has been told."""

    catalog: str | None = None
    storage: str | None = None
    namespace: str | None = None
    index_text: bool | None = None
    timeout: float | None = None
    encryption: str | None = dataclasses.field(default=None, repr=False)

    @contextlib.asynccontextmanager
    async def memory(self, *, patient: bool = False) -> AsyncIterator[LTMBackend]:
        """The memory that is meant; calls that read all of it are *patient*."""
        if self.catalog is None:
            raise UsageError("no catalog: --catalog or LTM_CATALOG, as sqlite:///memory.db")
        if self.storage is None:
            raise UsageError("no storage: --storage or LTM_STORAGE, such as ./blobs")
        keyring = None if self.encryption is None else Keyring.from_config(self.encryption)
        limits: dict[str, Any] = {}
        if self.timeout is not None or patient:
            limits["timeout"] = self.timeout
        ltm = LTMBackend(
            self.catalog,
            self.storage,
            namespace=self.namespace or "",
            on_unavailable="raise",
            index_text=bool(self.index_text),
            encryption=keyring,
            **limits,
        )
        try:
            yield ltm  # opened by its first call, so that bad input makes no file
        finally:
            await ltm.aclose()

    def call(
        self, work: Callable[[LTMBackend], Coroutine[Any, Any, T]], *, patient: bool = False
    ) -> T:
        async def run() -> T:
            async with self.memory(patient=patient) as ltm:
                return await work(ltm)

        return asyncio.run(run())

    def hide(self, text: str) -> str:
        return doctor.Hider(self.catalog, self.storage)(text)

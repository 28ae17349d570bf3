"""LTMStore: LangGraph's long-term memory on a backend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from ltm_async.backend import LTMBackend
from ltm_async.config import check_names
from ltm_async.errors import InvalidEntryError
from ltm_async.integrations.waiting import wait_for
from ltm_async.transfer import fan_out

from .items import entry_of, item_of, renew
from .names import STORE_ROOT, Name, entry_key
from .namespaces import check_list, list_namespaces
from .searching import Search

READS_AT_ONCE = 10


class LTMStore(BaseStore):
    """LangGraph's ``BaseStore`` on *ltm*, for ``compile(store=…)``; it stays yours to close.

    Its async methods never block the loop; the others wait, in any thread that runs no event loop.
    Usable from any loop and thread. An item is an entry, under ``langgraph/store/``: the limits
    and the JSON of :meth:`LTMBackend.store` hold, and namespace and key have up to 1,024 bytes
    together. Store failures raise, whatever the backend's ``on_unavailable``: an item that could
    not be read is never called missing.

    TTLs are minutes and may be fractions; an item is gone from its end on, whether or not
    ``cleanup_expired`` has removed it. Reading renews the TTL, with one more call for each item
    that has one, unless ``refresh_ttl=False``.

    Without a query, searching gives the items that were put last first, and reads every entry below
    the namespace (and, for a *filter*, its value), with bounded memory. With one it gives those
    that fit it best, of those that :meth:`LTMBackend.search` ranks, with their scores: by their
    text where the backend has ``index_text=True``, by their vectors where it has ``embed``, by both
    where it has both. What is embedded are all strings of an item's value; ``index`` has no effect.
    A filter is one of metadata, asked of the item's value: ``$eq $ne $gt $gte $lt $lte`` and the
    rest of :mod:`ltm_async.filters`.

    The gets of one ``abatch`` are one ``retrieve_batch``, its puts one ``store_batch``, its deletes
    one ``delete_batch``. All reads come before all writes; of several writes of one item the last
    counts.

    Args:
        ltm: Where the items are kept.
        ttl: ``default_ttl`` in minutes and ``refresh_on_read``, as LangGraph means them.

    Raises:
        ConfigError: *ttl* has an option that is not known here, such as a sweeper's interval.
    """

    supports_ttl = True

    def __init__(self, ltm: LTMBackend, *, ttl: TTLConfig | None = None) -> None:
        check_names("ttl", ttl or {}, ("default_ttl", "refresh_on_read", "omit_expired"))
        self.ttl_config = ttl
        self._ltm = ltm

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """:meth:`abatch`, waiting for its results.

        Raises:
            BlockingCallError: The thread runs an event loop.
        """
        asked = list(ops)
        return wait_for(lambda: self.abatch(asked))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do *ops*, with a result for each: an Item or None, items, namespaces, or None.

        Puts are stored ``batch_size`` at a time, each such batch whole or not at all.

        Raises:
            InvalidNamespaceError: LangGraph does not allow a namespace; nothing was sent.
            InvalidEntryError: A key, query, filter or limit cannot be used; nothing was sent. Or a
                value or TTL, or a query without words; nothing was written.
            ConfigError: There is a query, and the backend keeps neither texts nor vectors.
            StoreError: A store failed.
        """
        asked = list(ops)
        results: list[Result] = [None] * len(asked)
        gets: dict[int, tuple[str, GetOp]] = {}
        puts: dict[str, PutOp] = {}
        reads: list[Callable[[], Awaitable[None]]] = []
        for place, op in enumerate(asked):
            validate_op_namespace(op)
            match op:
                case GetOp():
                    gets[place] = (entry_key(STORE_ROOT, Name(op.namespace, op.key)), op)
                case PutOp():
                    puts[entry_key(STORE_ROOT, Name(op.namespace, op.key))] = op
                case SearchOp():
                    reads.append(self._search(Search.of(op), place, results))
                case ListNamespacesOp():
                    check_list(op)
                    reads.append(self._list(op, place, results))
                case _:
                    raise InvalidEntryError(f"there is no operation {type(op).__name__}")
        entries = [entry_of(key, op) for key, op in puts.items() if op.value is not None]
        deleted = [key for key, op in puts.items() if op.value is None]
        if gets:
            reads.append(self._get(gets, results))
        if reads:
            await fan_out(reads, lambda read: read(), count=READS_AT_ONCE)
        if entries:
            (await self._ltm.store_batch(entries)).raise_for_error()
        if deleted:
            (await self._ltm.delete_batch(deleted)).raise_for_error()
        return results

    def _get(
        self, gets: dict[int, tuple[str, GetOp]], results: list[Any]
    ) -> Callable[[], Awaitable[None]]:
        async def get() -> None:
            read = await self._ltm.retrieve_batch(key for key, _ in gets.values())
            found = read.raise_for_error().results
            for place, (key, op) in gets.items():
                if key in found:
                    results[place] = item_of(Name(op.namespace, op.key), found[key])
            renewed = {key for key, op in gets.values() if op.refresh_ttl and key in found}
            await renew(self._ltm, [found[key] for key in renewed])

        return get

    def _search(
        self, search: Search, place: int, results: list[Any]
    ) -> Callable[[], Awaitable[None]]:
        async def find() -> None:
            results[place] = await search.run(self._ltm)

        return find

    def _list(
        self, op: ListNamespacesOp, place: int, results: list[Any]
    ) -> Callable[[], Awaitable[None]]:
        async def find() -> None:
            results[place] = await list_namespaces(self._ltm, op)

        return find

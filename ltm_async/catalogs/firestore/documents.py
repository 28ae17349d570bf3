"""The requests that are made of Firestore: read some, commit some, look some up, and count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...deadline import remaining_s
from ...errors import StoreError
from .changes import Changes, Found, StaleError, Usage
from .client import Client
from .layout import Document, Range, Since
from .messages import ask_any, ask_nearest, ask_range, ask_since, document, to_us

LONGEST_S = 60.0
"""For a request in a call without a deadline."""


class Documents:
    """The documents of one project and database, in collections that begin with *prefix*."""

    def __init__(self, client: Client, prefix: str, usage: Usage) -> None:
        self._client = client
        self._prefix = prefix
        self._root = f"{client.database}/documents"
        self._home = f"{self._root}/{prefix}"
        self._usage = usage

    async def read(
        self, names: Mapping[str, Iterable[str]], *, fields: Sequence[str] | None = None
    ) -> Found:
        """Those of *names*, by collection, that are there; one request, of one name at least."""
        request = self._client.read_request(database=self._client.database)
        for collection, wanted in names.items():
            request.documents.extend([f"{self._home}{collection}/{name}" for name in wanted])
        if fields is not None:
            request.mask.field_paths.extend(fields)
        self._usage.requests += 1
        self._usage.reads += len(request.documents)
        found: dict[str, Document] = {}
        now_us = 0
        with self._client.answering(StoreError):
            async for answer in self._client.read(request, _timeout_s()):
                now_us = to_us(answer.read_time)
                if answer.HasField("found"):
                    one = document(answer.found)
                    found[one.name] = one
        return Found(found, now_us)

    async def commit(self, changes: Changes) -> int:
        """All of *changes* or none; the version that changed documents have from now on.

        Raises:
            StaleError: A document was not as expected.
        """
        request = self._client.commit_request(database=self._client.database)
        changes.write_to(request.writes, self._home)
        self._usage.requests += 1
        with self._client.answering(StaleError):
            answer = await self._client.commit(request, _timeout_s())
        changes.counted(self._usage)
        return to_us(answer.commit_time)

    async def query(
        self, collection: str, within: Range, *, limit: int | None, fields: Sequence[str] = ()
    ) -> Found:
        """Up to *limit* documents of a range, in the order of its field, with these *fields*."""
        request = self._client.query_request(parent=self._root)
        place = self._prefix + collection
        ask_range(request.structured_query, place, within, limit=limit, fields=fields)
        return await self._asked(request)

    async def query_any(
        self,
        collection: str,
        field: str,
        texts: Sequence[str],
        *,
        limit: int,
        fields: Sequence[str],
    ) -> Found:
        """Up to *limit* documents whose list *field* has one of at most 30 *texts*."""
        request = self._client.query_request(parent=self._root)
        query = request.structured_query
        ask_any(query, self._prefix + collection, field, texts)
        query.limit.value = limit
        for name in fields:
            query.select.fields.add(field_path=name)
        return await self._asked(request)

    async def count_any(
        self, collection: str, field: str, texts: Sequence[str], *, limit: int
    ) -> int:
        """How many there are of these, counted up to *limit*."""
        request = self._client.count_request(parent=self._root)
        asked = request.structured_aggregation_query
        ask_any(asked.structured_query, self._prefix + collection, field, texts)
        asked.aggregations.add(alias="n").count.up_to.value = limit
        self._usage.requests += 1
        count = 0
        with self._client.answering(StoreError):
            async for answer in self._client.count(request, _timeout_s()):
                count = answer.result.aggregate_fields["n"].integer_value
        self._usage.reads += 1 + count // 1000
        return count

    async def query_nearest(
        self,
        collection: str,
        field: str,
        vector: bytes,
        *,
        namespace: str,
        limit: int,
        fields: Sequence[str],
        distance: str,
    ) -> Found:
        """Up to *limit* documents of *namespace* nearest to *vector*, nearest first."""
        request = self._client.query_request(parent=self._root)
        ask_nearest(
            request.structured_query,
            self._prefix + collection,
            field,
            vector,
            namespace=namespace,
            limit=limit,
            fields=fields,
            distance=distance,
        )
        return await self._asked(request)

    async def query_since(
        self, collection: str, since: Since, *, limit: int, fields: Sequence[str]
    ) -> Found:
        """Up to *limit* documents by an instant, in its order."""
        request = self._client.query_request(parent=self._root)
        place = self._prefix + collection
        query = request.structured_query
        ask_since(query, place, since, limit=limit, fields=fields, home=f"{self._root}/")
        return await self._asked(request)

    async def _asked(self, request: Any) -> Found:
        self._usage.requests += 1
        found: dict[str, Document] = {}
        now_us = 0
        with self._client.answering(StoreError):
            async for answer in self._client.query(request, _timeout_s()):
                now_us = to_us(answer.read_time)
                if answer.HasField("document"):
                    one = document(answer.document)
                    found[one.name] = one
        self._usage.reads += max(1, len(found))
        return Found(found, now_us)


def _timeout_s() -> float:
    """The server is told to give up, too."""
    remaining = remaining_s()
    return LONGEST_S if remaining is None else max(0.001, min(remaining, LONGEST_S))

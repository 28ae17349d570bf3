"""What every catalog must list, and leave out."""

from __future__ import annotations

import json

import pytest

from ..entry import Expiry
from ..filters import parse_filter
from ..protocols import Catalog, Row
from .writes import (
    SECOND_US,
    SPACE,
    CatalogTests,
    small,
)


class ListingTests(CatalogTests):
    @pytest.mark.parametrize("prefix", ["", "a", "a%", "a_", "a\\", "ü", "A", "\U0010ffff", "z"])
    async def test_a_prefix_is_text_not_a_pattern(self, catalog: Catalog, prefix: str) -> None:
        keys = ["A", "a", "a%", "a%b", "a\\x", "a_", "aXb", "a\U0010ffffb", "ü", "üb"]
        keys += ["\U0010ffff", "\U0010ffffx"]
        await self.track(catalog, *(small(key) for key in keys))
        found = [row.key for row in await catalog.list_entries(SPACE, prefix=prefix, limit=100)]
        assert found == sorted(key for key in keys if key.startswith(prefix))

    async def test_pages_follow_each_other(self, catalog: Catalog) -> None:
        keys = sorted(f"p{n}" for n in range(25))
        await self.track(catalog, small("o"), small("q"), *(small(key) for key in keys))
        found: list[str] = []
        while page := await catalog.list_entries(
            SPACE, prefix="p", after=found[-1] if found else "", limit=7
        ):
            found += [row.key for row in page]
        assert found == keys

    async def test_a_listing_carries_no_values(self, catalog: Catalog) -> None:
        await self.track(catalog, small("k", '"v"', metadata='{"a":1}'))
        (row,) = await catalog.list_entries(SPACE, limit=1)
        assert (row.inlined_value, row.byte_size) == (None, 3)
        assert row.metadata.replace(" ", "") == '{"a":1}'

    @pytest.mark.parametrize("limit", [1, 4, 100])
    @pytest.mark.parametrize(
        "given",
        [
            {"n": {"$gte": 20}},
            {"$or": [{"kind": "task"}, {"n": 0}]},
            {"n": 2**60},  # which a store may not be able to compare
            {"$path": ["kind", "'; --"], "$exists": True},
        ],
    )
    async def test_a_filter_leaves_out_nothing_that_it_wants(
        self, catalog: Catalog, given: dict[str, object], limit: int
    ) -> None:
        metadata = {
            f"k{n:02}": {"n": n, "kind": "task" if n % 7 == 0 else "note"} for n in range(24)
        }
        metadata["k24"] = {"n": 2**60}
        writes = [small(key, metadata=json.dumps(kept)) for key, kept in metadata.items()]
        await self.track(catalog, small("j"), small("l", metadata='{"n":21}'), *writes)
        wanted, after = parse_filter(given), ""
        found: dict[str, Row] = {}
        while True:
            page = await catalog.filter_entries(
                SPACE, wanted, prefix="k", after=after, limit=limit, most=10
            )
            assert len(page.rows) <= min(limit, page.examined)
            assert page.examined <= 10
            for row in page.rows:
                assert row.key > max(found, default="")
                found[row.key] = row
            if page.after is None:
                break
            assert page.after > after
            after = page.after
        listed = {row.key: row for row in await catalog.list_entries(SPACE, prefix="k", limit=100)}
        assert found == {key: listed[key] for key in found}
        assert {key for key, kept in metadata.items() if wanted.matches(kept)} <= set(found)

    async def test_a_filter_finds_no_expired_row(self, catalog: Catalog) -> None:
        soon = Expiry(ttl_us=SECOND_US)
        await self.track(catalog, *(small(f"a{n}", expiry=soon) for n in range(5)), small("b"))
        await self.advance(catalog, 2)
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await catalog.filter_entries(
                SPACE, parse_filter({}), after=after, limit=3, most=3
            )
            assert page.examined <= 3
            found += [row.key for row in page.rows]
            after = page.after
        assert found == ["b"]

"""What every catalog that keeps vectors must do."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import pytest

from ..entry import NEVER, Expiry
from ..errors import ConflictError, FencedError
from ..filters import parse_filter
from ..protocols import Catalog, Near, Write
from ..vectors import to_floats, to_unit
from .hiding import refuse_hidden
from .writes import LARGE, LEASE_US, SECOND_US, large, new_write_id, reservation, small

SPACE = "vector contract"
DIMENSIONS = 16
EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def random_vectors(count: int, *, seed: int, dimensions: int = DIMENSIONS) -> list[list[float]]:
    source = random.Random(seed)
    return [[source.gauss(0, 3) for _ in range(dimensions)] for _ in range(count)]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """As in the books."""
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


class VectorContract:
    """Subclass it and give it ``catalog``, ``advance`` and ``raw_vectors``.

    The first two are those of ``CatalogContract``; ``raw_vectors`` looks at the store without the
    adapter.
    """

    def __init_subclass__(cls) -> None:
        refuse_hidden(cls)
        super().__init_subclass__()

    @pytest.fixture
    def catalog(self) -> Catalog:
        raise NotImplementedError

    async def advance(self, catalog: Catalog, seconds: float) -> None:
        """Let the catalog's clock go on, or its rows grow older by as much."""
        raise NotImplementedError

    async def raw_vectors(self, catalog: Catalog, namespace: str) -> set[str]:
        """The keys that the store has a vector for."""
        raise NotImplementedError

    @staticmethod
    def _point(
        key: str, vector: Sequence[float], *, metadata: str = "{}", expiry: Expiry = NEVER
    ) -> Write:
        made = small(key, metadata=metadata, expiry=expiry)
        return made._replace(vector=to_unit(vector, None))

    async def _keep(self, catalog: Catalog, *writes: Write, namespace: str = SPACE) -> None:
        await catalog.track_entries_batch(namespace, writes, write_id=new_write_id())

    async def _near(
        self,
        catalog: Catalog,
        vector: Sequence[float],
        *,
        limit: int = 100,
        namespace: str = SPACE,
    ) -> list[Near]:
        sought = to_unit(vector, None)
        return await catalog.nearest_entries(namespace, sought, wanted=None, limit=limit)

    async def _keys_near(
        self, catalog: Catalog, vector: Sequence[float], *, namespace: str = SPACE
    ) -> list[str]:
        return [near.row.key for near in await self._near(catalog, vector, namespace=namespace)]

    @staticmethod
    def _ranked(vectors: Mapping[str, Sequence[float]], sought: Sequence[float]) -> list[str]:
        return sorted(vectors, key=lambda key: -cosine(vectors[key], sought))

    async def test_the_nearest_are_those_of_comparing_with_each(self, catalog: Catalog) -> None:
        vectors = {f"k{n:03}": made for n, made in enumerate(random_vectors(300, seed=1))}
        await self._keep(catalog, *(self._point(key, made) for key, made in vectors.items()))
        for sought in [*random_vectors(5, seed=2), vectors["k007"]]:
            found = await self._near(catalog, sought, limit=40)
            assert [near.row.key for near in found] == self._ranked(vectors, sought)[:40]
            for near in found:
                assert near.cosine == pytest.approx(cosine(vectors[near.row.key], sought), abs=1e-5)

    async def test_the_length_of_a_vector_does_not_matter(self, catalog: Catalog) -> None:
        directions = {"far": [1.0, -2.0, 0.5], "near": [1.0, 2.1, 3.0], "nearer": [1.0, 2.0, 2.9]}
        scales = {"far": 1e30, "near": 1e300, "nearer": 1e-300}
        await self._keep(
            catalog,
            *(
                self._point(key, [scales[key] * number for number in made])
                for key, made in directions.items()
            ),
        )
        assert await self._keys_near(catalog, [0.1, 0.2, 0.29]) == ["nearer", "near", "far"]

    async def test_the_same_and_the_opposite_direction(self, catalog: Catalog) -> None:
        points = {"east": EAST, "north": NORTH, "west": WEST}
        await self._keep(catalog, *(self._point(key, made) for key, made in points.items()))
        found = {near.row.key: near.cosine for near in await self._near(catalog, EAST)}
        assert list(found) == ["east", "north", "west"]
        assert list(found.values()) == pytest.approx([1, 0, -1], abs=1e-6)

    async def test_a_near_row_is_as_a_listing_shows_it(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("k", EAST, metadata='{"kind":"note"}'))
        (near,) = await self._near(catalog, EAST)
        (listed,) = await catalog.list_entries(SPACE, limit=1)
        assert near.row == listed

    async def test_a_vector_is_replaced_with_its_row(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("k", EAST), self._point("other", NORTH))
        await self._keep(catalog, self._point("k", WEST))
        assert await self._keys_near(catalog, WEST) == ["k", "other"]
        assert await self._keys_near(catalog, EAST) == ["other", "k"]

    async def test_a_row_stored_without_a_vector_is_not_found(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("k", EAST), self._point("other", EAST))
        await self._keep(catalog, small("k"), self._point("third", EAST))
        assert set(await self._keys_near(catalog, EAST)) == {"other", "third"}
        await self._keep(catalog, small("other"))
        assert await self._keys_near(catalog, EAST) == ["third"]

    async def test_a_touched_row_keeps_its_vector(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("k", EAST))
        await catalog.touch_entry(
            SPACE, "k", expiry=NEVER, metadata='{"a":1}', write_id=new_write_id()
        )
        assert await self._keys_near(catalog, EAST) == ["k"]

    async def test_what_was_deleted_is_not_near_not_even_when_it_comes_back(
        self, catalog: Catalog
    ) -> None:
        await self._keep(catalog, self._point("a", EAST), self._point("b", EAST))
        assert await self.raw_vectors(catalog, SPACE) == {"a", "b"}
        await catalog.delete_entries_batch(SPACE, ["a"], write_id=new_write_id())
        assert await self._keys_near(catalog, EAST) == ["b"]
        assert await self.raw_vectors(catalog, SPACE) == {"b"}
        await self._keep(catalog, small("a"))
        assert await self._keys_near(catalog, EAST) == ["b"]

    async def test_what_has_expired_is_not_near(self, catalog: Catalog) -> None:
        soon = Expiry(ttl_us=10 * SECOND_US)
        await self._keep(catalog, self._point("a", EAST, expiry=soon), self._point("b", NORTH))
        assert await self._keys_near(catalog, EAST) == ["a", "b"]
        await self.advance(catalog, 11)
        assert await self._keys_near(catalog, EAST) == ["b"]
        assert await self.raw_vectors(catalog, SPACE) == {"a", "b"}
        await catalog.expire_entries(SPACE, 10, write_id=new_write_id())
        assert await self.raw_vectors(catalog, SPACE) == {"b"}
        await self._keep(catalog, small("a"))
        assert await self._keys_near(catalog, EAST) == ["b"]

    async def test_a_large_value_has_a_vector_and_so_when_it_is_renewed(
        self, catalog: Catalog
    ) -> None:
        blob = reservation("k")
        await catalog.reserve_blobs(SPACE, [blob], lease_us=LEASE_US)
        await self._keep(catalog, large("k", blob.blob_id)._replace(vector=to_unit(EAST, None)))
        assert await self._keys_near(catalog, EAST) == ["k"]
        await self._keep(catalog, large("k", None)._replace(vector=to_unit(WEST, None)))
        (near,) = await self._near(catalog, WEST)
        assert near.row.key == "k" and near.cosine == pytest.approx(1, abs=1e-6)

    async def test_a_refused_batch_changes_no_vector(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("a", EAST))
        stale = self._point("b", WEST)._replace(if_version=7)
        with pytest.raises(ConflictError):
            await self._keep(catalog, self._point("a", WEST), stale)
        ended = large("c", reservation("c", LARGE).blob_id)._replace(vector=to_unit(WEST, None))
        with pytest.raises(FencedError):
            await self._keep(catalog, self._point("a", WEST), ended)
        (near,) = await self._near(catalog, EAST)
        assert near.row.key == "a" and near.cosine == pytest.approx(1, abs=1e-6)

    async def test_vectors_of_another_length_are_left_out(self, catalog: Catalog) -> None:
        await self._keep(catalog, self._point("two", EAST), self._point("three", [*EAST, 0.0]))
        assert await self._keys_near(catalog, EAST) == ["two"]
        assert await self._keys_near(catalog, [*EAST, 0.0]) == ["three"]
        assert await self._keys_near(catalog, [1.0]) == []
        await self._keep(catalog, self._point("two", [*NORTH, 0.0]))
        assert await self._keys_near(catalog, EAST) == []
        assert await self._keys_near(catalog, [*NORTH, 0.0]) == ["two", "three"]

    async def test_vectors_of_other_namespaces_are_not_near(self, catalog: Catalog) -> None:
        others = ["", SPACE + " ", SPACE.upper(), "'; --", "a" * 256]
        await self._keep(catalog, self._point("k", EAST))
        for place, namespace in enumerate(others):
            writes = [self._point(f"k{n}", EAST) for n in range(place + 2)]
            await self._keep(catalog, *writes, self._point("k", WEST), namespace=namespace)
        for place, namespace in enumerate(others):
            found = await self._keys_near(catalog, EAST, namespace=namespace)
            assert set(found) == {"k", *(f"k{n}" for n in range(place + 2))}
        (ours,) = await self._near(catalog, EAST)
        assert ours.cosine == pytest.approx(1, abs=1e-6)
        await catalog.delete_entries_batch("", ["k0"], write_id=new_write_id())
        assert await self._keys_near(catalog, EAST) == ["k"]
        assert await self._keys_near(catalog, EAST, namespace="") == ["k1", "k"]
        assert await self._keys_near(catalog, EAST, namespace="other") == []

    async def test_what_a_filter_wants_is_near_however_much_is_nearer(
        self, catalog: Catalog
    ) -> None:
        vectors = random_vectors(60, seed=3)
        writes = [
            self._point(f"k{n:02}", made, metadata=f'{{"n":{n},"a.b":"{n % 3}"}}')
            for n, made in enumerate(vectors)
        ]
        await self._keep(catalog, *writes)
        points = {f"k{n:02}": made for n, made in enumerate(vectors)}
        for given in ({"a.b": "1"}, {"n": {"$gte": 50}}, {"$not": {"n": {"$lt": 3.5}}}):
            wanted = parse_filter(given)
            kept = [
                key for n, key in enumerate(points) if wanted.matches({"n": n, "a.b": str(n % 3)})
            ]
            near = await catalog.nearest_entries(
                SPACE, to_unit(vectors[0], None), wanted=wanted, limit=5
            )
            expected = self._ranked({key: points[key] for key in kept}, vectors[0])[:5]
            assert [one.row.key for one in near if one.row.key in kept][:5] == expected

    async def test_vectors_as_long_and_as_short_as_they_may_be(self, catalog: Catalog) -> None:
        longest = random_vectors(3, seed=4, dimensions=2048)
        await self._keep(catalog, *(self._point(f"k{n}", made) for n, made in enumerate(longest)))
        await self._keep(catalog, self._point("short", [-5.0]))
        (nearest, *_) = await self._near(catalog, longest[1])
        assert nearest.row.key == "k1" and nearest.cosine == pytest.approx(1, abs=1e-5)
        (short,) = await self._near(catalog, [3.0])
        assert short.row.key == "short" and short.cosine == pytest.approx(-1, abs=1e-6)

    async def test_a_vector_of_small_and_large_numbers_keeps_its_precision(
        self, catalog: Catalog
    ) -> None:
        made = [1.0, 1e-7, 1e-20, -1e-38]
        await self._keep(catalog, self._point("k", made))
        assert list(to_floats(to_unit(made, None))) == pytest.approx(made, rel=1e-6)
        (near,) = await self._near(catalog, made)
        assert near.cosine == pytest.approx(1, abs=1e-6)

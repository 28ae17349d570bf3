"""What the machine draws: calls, what goes wrong in them, and how the clock is set."""

from __future__ import annotations

from hypothesis import strategies as st

from .call import Call
from .reading import Count, Retrieve, RetrieveBatch, Verify
from .removing import Cleanup, Collect, Delete, DeleteBatch
from .storing import Store, StoreBatch, Touch, Update
from .trouble import COMMIT, Fault
from .worlds import KEYS

LEASE_S = 700.0
"""Longer than any lease of the library."""

keys = st.sampled_from(KEYS)
some_keys = st.lists(keys, min_size=1, max_size=len(KEYS), unique=True)
marks = st.integers(1, 9)
values = st.one_of(
    st.sampled_from([None, 0, "small", "x" * 40, "x" * 2_000, ["y" * 2_000]]),
    marks.map(lambda mark: [mark, "z" * 1_500]),
    marks,
)
metadata = st.sampled_from([None, {"m": 1}, {"m": 2}])
ttls = st.sampled_from([None, None, 1.0, 30.0])
limits = st.sampled_from([1, 2, 100])
prefixes = st.sampled_from(["", "a", "k%"])

stores = st.builds(
    Store, keys, values, metadata, ttls, expected=st.sampled_from([None, None, None, 0])
) | st.builds(Store, keys, values, metadata, ends_in=st.sampled_from([-5.0, 0.0, 5.0]))
store_batches = st.lists(
    st.builds(Store, keys, values, metadata, ttls),
    min_size=1,
    max_size=len(KEYS),
    unique_by=lambda store: store.key,
).map(StoreBatch)
calls: st.SearchStrategy[Call] = st.one_of(
    stores,
    store_batches,
    st.builds(Retrieve, keys),
    st.builds(RetrieveBatch, some_keys),
    st.builds(Delete, keys),
    st.builds(DeleteBatch, some_keys),
    st.builds(Touch, keys, ttls, metadata),
    st.builds(Update, keys, marks, ttls),
    st.builds(Cleanup, limits),
)
calls_or_collect = calls | st.just(Collect())
housekeeping_or_store = st.sampled_from([Collect(), Cleanup(100)]) | stores
looks_at_all: st.SearchStrategy[Call] = st.sampled_from([Count(), Verify()])

steps = st.sampled_from([COMMIT, COMMIT, COMMIT, 0, 0, 1, 2, 3])
once = [fault for fault in Fault if fault is not Fault.DOWN]
faults = st.sampled_from([*once, *once, Fault.DOWN])
plans: st.SearchStrategy[dict[int, Fault]] = st.just({}) | st.dictionaries(
    steps, faults, min_size=1, max_size=2
)
clients = st.sampled_from([0, 1])
spans = st.sampled_from([1e-6, 1.0, 29.0, LEASE_S, 8 * 86_400.0, -1.0, -30.0, -LEASE_S])
"""Seconds; the clock is set back by the negative ones."""
longer_spans = st.sampled_from([1.0, 30.0, LEASE_S])

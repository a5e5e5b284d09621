"""Which measurement serves a number of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jit.autotuner.buckets import buckets
from moe_jit.autotuner.key import Key
from moe_jit.autotuner.table import Measurement, Table

KEY = Key.of({"layer": 1})


def measurement(bucket: int) -> Measurement:
    """One that can be told apart from those of other buckets."""
    return Measurement({"tile_tokens": 16}, {"tile_tokens": 8}, bucket, bucket + 1, 0.0)


def table(largest: int) -> Table:
    return Table({KEY: {bucket: measurement(bucket) for bucket in buckets(largest)}})


@given(st.integers(1, 8192), st.integers(1, 8192))
def test_the_table_of_one_list_serves_any_smaller_one(num_tokens: int, largest: int) -> None:
    """What a list that ends at a bucket finds is found in the table of every longer list."""
    regular = [bucket for bucket in buckets(8192) if num_tokens <= bucket]
    assert table(8192).find(KEY, num_tokens) == (regular[0], measurement(regular[0]))
    for end in (bucket for bucket in regular if bucket >= largest):
        assert table(end).find(KEY, num_tokens) == table(8192).find(KEY, num_tokens)


@pytest.mark.parametrize(
    ("num_tokens", "bucket"), [(1000, 1000), (769, 1000), (768, 768), (513, 768), (1001, None)]
)
def test_the_odd_end_of_a_list(num_tokens: int, bucket: int | None) -> None:
    found = table(1000).find(KEY, num_tokens)
    assert (found and found[0]) == bucket


def test_an_unmeasured_bucket_is_not_replaced_by_a_wider_one() -> None:
    sparse = Table({KEY: {bucket: measurement(bucket) for bucket in (1, 64, 512)}})
    assert sparse.find(KEY, 64) == (64, measurement(64))
    assert sparse.find(KEY, 33) == (64, measurement(64))
    assert sparse.find(KEY, 32) is None
    assert sparse.find(KEY, 8192) is None
    assert sparse.find(Key.of({"layer": 2}), 64) is None


def test_updates_replace_single_buckets_and_leave_older_views_alone() -> None:
    known = table(4)
    before = known.layers
    known.update(KEY, {4: measurement(99)})
    assert known.find(KEY, 4) == (4, measurement(99))
    assert known.find(KEY, 2) == (2, measurement(2))
    assert before[KEY][4] == measurement(4)

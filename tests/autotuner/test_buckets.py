"""Buckets of num_tokens, against the list written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jit.autotuner.buckets import buckets, round_up

UP_TO_8192 = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048)
UP_TO_8192 += (2560, 3072, 3584, 4096, 8192)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (8192, UP_TO_8192),
        (4096, UP_TO_8192[:-1]),
        (20_000, (*UP_TO_8192, 16_384, 20_000)),
        (1000, (*UP_TO_8192[:11], 1000)),
        (3, (1, 2, 3)),
        (1, (1,)),
    ],
)
def test_lists(largest: int, expected: tuple[int, ...]) -> None:
    assert buckets(largest) == expected


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_round_up_is_the_next_bucket(num_tokens: int, more: int) -> None:
    every = buckets(4 * (num_tokens + more))[:-1]  # without the appended end
    assert round_up(num_tokens) == next(bucket for bucket in every if bucket >= num_tokens)


@given(st.integers(1, 100_000))
def test_list_is_ascending_and_ends_at_its_limit(largest: int) -> None:
    found = buckets(largest)
    assert list(found) == sorted(set(found))
    assert found[-1] == largest
    assert all(round_up(bucket) == bucket for bucket in found[:-1])

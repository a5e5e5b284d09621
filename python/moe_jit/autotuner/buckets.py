"""The numbers of tokens that tactics are measured at."""

from __future__ import annotations

# (last bucket of the phase, distance of its buckets); powers of two before the first and after the last.
_POWERS_UP_TO = 256
_STEPS = ((2048, 256), (4096, 512))


def round_up(num_tokens: int) -> int:
    """The smallest bucket that is no smaller than ``num_tokens``, from the list without an end.

    Powers of two up to 256, multiples of 256 up to 2048, multiples of 512 up to 4096, then powers of two.
    """
    if num_tokens > _POWERS_UP_TO:
        for last, step in _STEPS:
            if num_tokens <= last:
                return -(-num_tokens // step) * step
    return 1 << (num_tokens - 1).bit_length()


def buckets(max_num_tokens: int) -> tuple[int, ...]:
    """The buckets below ``max_num_tokens``, and that number itself, ascending."""
    found = []
    bucket = 1
    while bucket < max_num_tokens:
        found.append(bucket)
        bucket = round_up(bucket + 1)
    return (*found, max_num_tokens)

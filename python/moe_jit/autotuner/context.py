"""The ``autotune`` context."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from .. import checks
from . import state
from .profile import Settings
from .state import Session, default_cache


@contextmanager
def autotune(
    cache: str | os.PathLike[str] | None = None,
    *,
    tune: bool = True,
    max_seconds: float = 60.0,
    skew: float = 0.0,
    min_gain: float = 0.02,
    group: dist.ProcessGroup | None = None,
) -> Iterator[None]:
    """Measure the tactics of every layer that is called inside, and use what was measured from then on.

    The first call of a layer shape measures all buckets of num_tokens up to its ``tune_max_num_tokens`` that
    are not known yet, with random tokens and the caller's weights. The tensors that the call writes are not
    touched. The default tactic is always among those measured. Contexts may be nested and entered from
    several threads; they act on the whole process, the one entered last with its settings.

    Args:
        cache: JSON file to load now, and to merge results into. Default: MOE_JIT_AUTOTUNE_CACHE, if set. A
            file that cannot be used is reported and ignored.
        tune: false only loads ``cache``.
        max_seconds: time for measuring one layer shape, without compilation. What does not fit stays default.
        skew: imbalance of the routing to measure under: the r-th most popular expert gets tokens in
            proportion to r ** -skew. 0 is uniform.
        min_gain: by how much of its time (0.02 is 2 %) the default must be beaten, besides noise.
        group: torch.distributed group whose ranks choose alike, by the time of the slowest. All of them must
            make the same calls in the context.

    Raises:
        ValueError: ``max_seconds``, ``skew`` or ``min_gain`` is negative or not finite.
    """
    given = {"max_seconds": max_seconds, "skew": skew, "min_gain": min_gain}
    for name, value in given.items():
        number = checks.optional_finite(name, value)
        if number is None or number < 0:
            checks.reject(name, "a number of at least 0", value)
    path = Path(cache).expanduser() if cache is not None else default_cache()
    if path:
        state.STATE.load(path)
    if not tune:
        yield
        return
    session = Session(Settings(**given), path, group)
    state.STATE.open(session)
    try:
        yield
    finally:
        state.STATE.close(session)

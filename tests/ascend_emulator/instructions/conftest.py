from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.instructions import Driver, build


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Driver:
    base = Path(tmp_path_factory.getbasetemp())
    return build(base if worker_id == "master" else base.parent)


@pytest.fixture
def rng() -> np.random.Generator:
    seed = np.random.SeedSequence().entropy
    print(f"seed {seed}")  # shown when a test fails
    return np.random.default_rng(seed)

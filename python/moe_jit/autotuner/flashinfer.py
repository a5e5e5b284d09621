"""FlashInfer's own ``autotune()`` context counts as ours, if something else has imported FlashInfer."""

from __future__ import annotations

import sys

MODULE = "flashinfer.autotuner"


def is_tuning() -> bool:
    module = sys.modules.get(MODULE)
    if module is None:
        return False
    try:
        return bool(module.AutoTuner.get().is_tuning_mode)
    except (AttributeError, TypeError):  # being imported just now, or another version
        return False

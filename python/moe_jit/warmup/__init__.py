"""Ahead-of-time compilation for a model: its configuration in, a directory of compiled modules out."""

from .models import ExpertLayer, expert_layer, read_config
from .run import WarmupReport, module_specs, warmup

__all__ = ["ExpertLayer", "WarmupReport", "expert_layer", "module_specs", "read_config", "warmup"]

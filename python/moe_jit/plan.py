"""From a problem to the module that solves it: a pure function of what the host knows.

Only what a kernel needs at compile time enters the module; sizes, offsets and layouts are run-time arguments,
so layers of one model share their modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .enums import ActivationType
from .jit import ModuleSpec, Unit
from .problem import MoEProblem

# Token tiles with compiled code, see include/moe_jit/cuda/gemm/tile.cuh.
TILE_TOKENS = (8, 16, 64, 128, 160, 192, 320, 384)
# Compute-bound ones: of one CTA, and of two that share weights.
_WIDE = (160, 192)
_PAIRED = (320, 384)
# Those that leave no registers for promotion of partial sums to fp32, see csrc/cuda/experts.cu.
_FAST_ACCUMULATION_TILES = frozenset({*_WIDE, *_PAIRED})
# Above these the next tile is faster: a full 128-token tile waits for promotion and L2 (benchmarks/NOTES.md).
_MOST_ROWS = {128: 86}
_SHORT_K = 1024
# Weight rows of the second tile, and the share of the SMs that count as all of them.
_WIDE_ROWS = 128
_FULL_WAVE = 0.9
_EXPERT_TIERS = (32, 64, 128, 256, 512, 1024, 2048)
_LOCAL_EXPERT_TIERS = (512, 2048)


@dataclass(frozen=True, slots=True)
class Tactic:
    """What is chosen for speed alone. Fields are numbers or strings, which the tuner keeps in a file."""

    tile_tokens: int

    @property
    def has_fast_accumulation(self) -> bool:
        return self.tile_tokens in _FAST_ACCUMULATION_TILES


@dataclass(frozen=True, slots=True)
class Plan:
    """How one problem runs on a GPU."""

    tactic: Tactic
    module: ModuleSpec


def _tier(value: int, tiers: tuple[int, ...]) -> int:
    return next(tier for tier in tiers if value <= tier)


def _is_one_wave(problem: MoEProblem) -> bool:
    """Whether gemm1's tiles of _WIDE_ROWS give every SM one, under uniform routing of few tokens."""
    experts = min(
        problem.num_local_experts, -(-problem.num_pairs * problem.num_local_experts // problem.num_experts)
    )
    tiles = experts * -(-problem.gemm1_rows // _WIDE_ROWS)
    return _FULL_WAVE * problem.device.sm_count <= tiles <= problem.device.sm_count


def _wide_tile(mean: float) -> int:
    """The tile that most experts need fewest of, the narrower one where they need equally many.

    With one token tile for each expert, two CTAs have no weights to share, and pairs gain nothing.
    """
    rows = mean + 1.5 * math.sqrt(mean)
    tiles = _WIDE if rows <= max(_WIDE) else _PAIRED
    return min(tiles, key=lambda tile: (math.ceil(rows / tile), tile))


def default_tile_tokens(problem: MoEProblem) -> int:
    """The narrowest token tile that holds nearly every expert's rows, so that weights are read once.

    An expert gets Binomial(num_tokens, top_k / num_experts) rows under uniform routing; three standard
    deviations above the mean cover all but a few experts.
    """
    mean = problem.num_tokens * problem.top_k / problem.num_experts
    rows = min(mean + 3 * math.sqrt(mean), problem.num_tokens)
    # The 8-token tile has half as many weight rows: worth its overhead where a tile streams long enough, and
    # where wide ones would not come out even.
    shortest_k = min(problem.hidden_size, problem.intermediate_size)
    first = 0 if shortest_k > _SHORT_K and not _is_one_wave(problem) else 1
    narrow = [tile for tile in TILE_TOKENS[first:] if tile not in _FAST_ACCUMULATION_TILES]
    fitting = next((tile for tile in narrow if rows <= _MOST_ROWS.get(tile, tile)), None)
    return fitting or (_wide_tile(mean) if problem.fast_accum else narrow[-1])


def default_tactic(problem: MoEProblem) -> Tactic:
    """The tactic without measurements."""
    return Tactic(default_tile_tokens(problem))


def candidates(problem: MoEProblem) -> tuple[Tactic, ...]:
    """The tactics worth measuring, the default first. None accumulates less exactly than the default."""
    default = default_tactic(problem)
    if problem.device.kind == "cpu":
        return (default,)
    at = TILE_TOKENS.index(default.tile_tokens)
    near = (Tactic(tile) for tile in TILE_TOKENS[max(0, at - 1) : at + 2])
    return (
        default,
        *(t for t in near if t != default and t.has_fast_accumulation <= default.has_fast_accumulation),
    )


def _route_unit(problem: MoEProblem) -> Unit:
    policy = "PreRouted" if problem.routing_method is None else problem.routing_method.name
    tier = _tier(problem.num_experts, _EXPERT_TIERS)
    return Unit(
        "cuda/route.cu",
        (("MOE_JIT_ROUTING", policy), ("MOE_JIT_MAX_EXPERTS", str(tier))),
    )


def _experts_unit(activation: ActivationType, num_local_experts: int, tile_tokens: int) -> Unit:
    return Unit(
        "cuda/experts.cu",
        (
            ("MOE_JIT_ACTIVATION", activation.name),
            ("MOE_JIT_MAX_LOCAL_EXPERTS", str(_tier(num_local_experts, _LOCAL_EXPERT_TIERS))),
            ("MOE_JIT_TILE_TOKENS", str(tile_tokens)),
        ),
    )


def plan(problem: MoEProblem, tactic: Tactic | None = None) -> Plan:
    """Name the translation units for a problem on a Hopper GPU; ``tactic`` replaces the default one."""
    tactic = tactic or default_tactic(problem)
    target = problem.device.target
    units = (
        _experts_unit(problem.activation, problem.num_local_experts, tactic.tile_tokens),
        _route_unit(problem),
        Unit("cuda/finalize.cu"),
        Unit("cuda/fp8_moe.cpp"),
    )
    return Plan(tactic, ModuleSpec(f"fp8_moe_{target.replace('_', '')}", units, target))

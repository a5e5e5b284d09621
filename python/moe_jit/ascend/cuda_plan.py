"""Which module computes an npu_grouped_matmul on a Hopper GPU, from the metadata of the call."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch

from moe_jit.jit import ModuleSpec, Unit

from .arguments import all_equal
from .matmul_arguments import GroupType, Kind, Request, k_groups
from .matmul_rules import Parameters
from .weights import BLOCK_K, Weight

_ELEMENT = {torch.float16: "F16", torch.bfloat16: "Bf16", torch.float32: "F32"}
_ALIGNMENT = 16  # bytes, of everything that is copied asynchronously or in vectors
# Of listed weights: 2**31 such steps, coordinates of one tensor map, reach all of a GPU's memory.
LISTED_ALIGNMENT = 256
_UNIT_COLUMNS = 16
# Elements of k that share scales: what divides the largest stage, or is a multiple of it.
_SHORT_GROUPS = (32, 64, 128)
_STAGE_DEPTH = 256
# Elements of k whose sums stay below 2**22, see format_int8_int4.cuh.
_LONGEST_SEGMENT = {Kind.INT8_INT4: 256, Kind.INT4: 4096}
_INT8_BLOCK = 128  # elements of k
_K_ORDER = 128  # bits of weights of a column whose k launch_order_pairs() orders at a time
_GROUP_TIERS = (128, 1024)
# Token tiles of include/moe_jit/cuda/gemm/tile.cuh.
_TILES = (16, 64, 128, 160)
# Measured (benchmarks/NOTES.md): tiles of alternating warpgroups are faster than those of 160 for a short
# k, and for int8 weights that are transposed.
_ALTERNATING_TILES = (16, 64, 128)
_LONG_K = 4096
_SHARED_TILES = (16, 64, 160)
_DEPTH_TILES = (64, 128)  # slabs of 64 columns of x
# Weights that are converted keep both math warpgroups on a tile, see Format::kTileWarpgroups; a tile of 32
# has more of them in a stage than one of 64.
_CONVERTED_TILES = (16, 32, 64, 160)
# Pairs of CTAs that share weights: of groups with more than one tile of 160, where at least two for every SM
# are to be computed.
_PAIR_TILE = 320
_ONE_TILE_ROWS = 160
_PAIR_TILE_COLUMNS = 256
_PAIRED_TILES = 264
# Two sets of sums leave no registers for wider tiles.
_SEGMENT_TILES = (16, 32, 64)


class TensorCoreProduct(NamedTuple):
    """Types of include/moe_jit/cuda/gemm, and the token tiles that they have code for."""

    format: str
    output: str
    tiles: tuple[int, ...]


def module_for(r: Request, p: Parameters, target: str) -> ModuleSpec:
    """The fastest module that takes the call."""
    product = tensor_core_product(r, p)
    if product is None:
        return direct_module(r, target)
    by_depth = r.group_type is GroupType.DEPTH
    return depth_module(r, product, target) if by_depth else tensor_core_module(r, p, product, target)


# ---- CUDA cores: any type, layout and alignment


def direct_module(r: Request, target: str) -> ModuleSpec:
    units = (
        Unit("cuda/grouped_matmul_direct.cu", (("MOE_JIT_PRODUCT", _direct_product(r)),)),
        Unit("cuda/grouped_matmul_direct.cpp"),
    )
    return ModuleSpec(f"grouped_matmul_direct_{target.replace('_', '')}", units, target)


def _direct_product(r: Request) -> str:
    """A type of include/moe_jit/cuda/direct/products.cuh."""
    if r.kind is Kind.FLOAT:
        return f"{_ELEMENT[r.x[0].dtype]}Product"
    if r.kind is Kind.ANTIQUANT:
        return f"{_ELEMENT[r.x[0].dtype]}{'Int4' if r.weight.packed else 'Int8'}Product"
    return {Kind.INT8: "Int8Product", Kind.INT8_INT4: "Int8Int4Product", Kind.INT4: "Int4Product"}[r.kind]


# ---- tensor cores


def tensor_core_module(r: Request, p: Parameters, product: TensorCoreProduct, target: str) -> ModuleSpec:
    unit = Unit(
        "cuda/grouped_matmul.cu",
        (
            ("MOE_JIT_FORMAT", product.format),
            ("MOE_JIT_OUTPUT", product.output),
            ("MOE_JIT_POINTWISE", str(p.act_type)),
            ("MOE_JIT_TILE_TOKENS", str(tile_tokens(r, product.tiles))),
            ("MOE_JIT_MAX_GROUPS", str(_group_tier(r))),
        ),
    )
    others = ("group_schedule.cu", "integer_rows.cu", "expert_lists.cu", "grouped_matmul.cpp")
    units = (unit, *[Unit(f"cuda/{name}") for name in others])
    return ModuleSpec(f"grouped_matmul_{target.replace('_', '')}", units, target)


def depth_module(r: Request, product: TensorCoreProduct, target: str) -> ModuleSpec:
    defines = (
        ("MOE_JIT_FORMAT", product.format),
        ("MOE_JIT_OUTPUT", product.output),
        ("MOE_JIT_TILE_TOKENS", str(tile_tokens(r, product.tiles))),
        ("MOE_JIT_MAX_GROUPS", str(_group_tier(r))),
    )
    others = ("expert_lists.cu", "grouped_matmul_depth.cpp")
    units = (Unit("cuda/grouped_matmul_depth.cu", defines), *[Unit(f"cuda/{name}") for name in others])
    return ModuleSpec(f"grouped_matmul_depth_{target.replace('_', '')}", units, target)


def _group_tier(r: Request) -> int:
    return next(tier for tier in _GROUP_TIERS if r.num_groups <= tier)


def tile_tokens(r: Request, tiles: tuple[int, ...]) -> int:
    """The narrowest token tile that holds nearly every group's rows, so that weights are read once."""
    mean = r.rows if r.group_type is GroupType.DEPTH else r.rows / r.num_groups
    work = r.rows / _ONE_TILE_ROWS * r.weight.n[0] / _PAIR_TILE_COLUMNS
    if _PAIR_TILE in tiles and mean > _ONE_TILE_ROWS and work >= _PAIRED_TILES:
        return _PAIR_TILE
    rows = min(mean + 3 * math.sqrt(mean), r.rows)
    single = [tile for tile in tiles if tile != _PAIR_TILE]
    return next((tile for tile in single if rows <= tile), single[-1])


def tensor_core_product(r: Request, p: Parameters) -> TensorCoreProduct | None:
    """None where sizes, alignment, layout or group type need the other module."""
    if r.group_type is GroupType.DEPTH:
        return _depth(r)
    aligned = _x_is_aligned(r) and _weight_is_aligned(r) and _parameters_are_aligned(p)
    if not aligned or not _groups_are_alike(r, p):
        return None
    products = {
        Kind.FLOAT: _float,
        Kind.ANTIQUANT: _antiquant,
        Kind.INT8: _int8,
        Kind.INT8_INT4: _int4,
        Kind.INT4: _int4,
    }
    return products[r.kind](r, p)


def _groups_are_alike(r: Request, p: Parameters) -> bool:
    """Separate products may have different sizes."""
    alike = all_equal([k_groups(r, table) for table in p.antiquant_scale or ()])
    return alike and (r.group_type is GroupType.NONE or all_equal(r.weight.n))


def _x_is_aligned(r: Request) -> bool:
    if r.kind is Kind.INT4:  # unpacked before the product
        return r.weight.k[0] % _ALIGNMENT == 0
    return all(_rows_are_aligned(x) for x in r.x)


def _rows_are_aligned(x: torch.Tensor) -> bool:
    size = x.element_size()
    sizes = (x.shape[1] * size, x.stride(0) * size, x.data_ptr())
    return x.stride(1) == 1 and all(s % _ALIGNMENT == 0 for s in sizes)


def _weight_is_aligned(r: Request) -> bool:
    return all(map(partial(_tensor_is_aligned, r.weight), r.weight.tensors, r.weight.n))


def _tensor_is_aligned(weight: Weight, tensor: torch.Tensor, n: int) -> bool:
    size = tensor.element_size()
    if weight.is_stacked:
        starts_aligned = (tensor.data_ptr() | tensor.stride(0) * size) % _ALIGNMENT == 0
    else:
        starts_aligned = tensor.data_ptr() % LISTED_ALIGNMENT == 0
    pitch = tensor.shape[-2] if weight.transposed else tensor.shape[-1]
    blocks = tensor.shape[-2:] if weight.blocked else (BLOCK_K, _ALIGNMENT)
    return (
        starts_aligned
        and pitch * size % _ALIGNMENT == 0
        and n % (_UNIT_COLUMNS if weight.transposed else 8) == 0
        and blocks[0] == BLOCK_K
    )


def _parameters_are_aligned(p: Parameters) -> bool:
    lists = (p.scale, p.antiquant_scale, p.antiquant_offset)
    return all(t.data_ptr() % _ALIGNMENT == 0 for tensors in lists if tensors is not None for t in tensors)


def _layout(r: Request) -> str:
    return "Blocked" if r.weight.blocked else "Plain"


def _float(r: Request, p: Parameters) -> TensorCoreProduct | None:
    if r.x[0].dtype == torch.float32 or (r.weight.blocked and r.weight.transposed):
        return None
    element = _ELEMENT[r.x[0].dtype]
    layout = "RowsOfK" if r.weight.transposed else _layout(r)
    tiles = _SHARED_TILES if r.weight.k[0] >= _LONG_K else _ALTERNATING_TILES
    output = f"FloatOutput<{element}>"
    return TensorCoreProduct(f"Float16Formats<{element}>::{layout}", output, (*tiles, _PAIR_TILE))


def _depth(r: Request) -> TensorCoreProduct | None:
    """Groups of k: rows of the transpose of x, and of the weight, are copied."""
    x = r.x[0]
    if x.dtype == torch.float32 or x.shape[1] == 1 or not all_equal(r.weight.n):
        return None
    if x.stride(0) != 1 or x.stride(1) < x.shape[0]:  # expanded rows are no rows of a tensor map
        return None
    tensors = (x, *r.weight.tensors)
    sizes = [size * x.element_size() for size in (x.stride(1), r.weight.n[0])]
    if any(s % _ALIGNMENT for s in (*sizes, *[t.data_ptr() for t in tensors])):
        return None
    element = _ELEMENT[x.dtype]
    return TensorCoreProduct(f"Float16GroupedDepth<{element}>", f"FloatOutput<{element}>", _DEPTH_TILES)


def _antiquant(r: Request, p: Parameters) -> TensorCoreProduct | None:
    if p.antiquant_scale is None:
        return None
    bits = 4 if r.weight.packed else 8
    if r.weight.transposed and (r.weight.blocked or any(k * bits % _K_ORDER for k in r.weight.k)):
        return None
    groups = k_groups(r, p.antiquant_scale[0])
    length = r.weight.k[0] // groups
    if groups > 1 and length not in _SHORT_GROUPS and length % _STAGE_DEPTH:
        return None
    element = _ELEMENT[r.x[0].dtype]
    form = "Single" if groups == 1 else f"Groups{length}" if length in _SHORT_GROUPS else "Groups"
    form += "" if p.antiquant_offset is None else "Offset"
    name = f"{'RowsOf' if r.weight.transposed else _layout(r)}Int{bits}<{element}>::{form}"
    output = "AntiquantOutput" if form == "Single" else "FloatOutput"
    # Parameters of eight groups in a stage leave no registers for a tile of 32.
    tiles = _SHARED_TILES if groups > 1 and length == _SHORT_GROUPS[0] else _CONVERTED_TILES
    if r.weight.transposed and r.weight.packed and groups > 1 and p.antiquant_offset is not None:
        tiles = _SEGMENT_TILES
    return TensorCoreProduct(name, f"{output}<{element}>", tiles)


def _scaled(p: Parameters) -> str:
    return f"Scaled{'' if p.bias is None else 'Biased'}<{_ELEMENT[p.output_dtype]}>"


def _int8(r: Request, p: Parameters) -> TensorCoreProduct | None:
    if r.weight.blocked and r.weight.transposed:
        return None
    outputs = {torch.int8: "RequantisedOutput", torch.int32: "IntegerOutput"}
    output = outputs.get(p.output_dtype) or _scaled(p)
    if r.weight.transposed:
        return TensorCoreProduct("Int8RowsOfK", output, (*_ALTERNATING_TILES, _PAIR_TILE))
    blocked = str(r.weight.blocked).lower()
    tiles = _TILES if r.weight.k[0] >= _LONG_K else _ALTERNATING_TILES
    return TensorCoreProduct(f"Int8SlabsOfN<{blocked}>", output, (*tiles, _PAIR_TILE))


def _int4(r: Request, p: Parameters) -> TensorCoreProduct | None:
    assert p.scale is not None
    segments = k_groups(r, p.scale[0])
    length = r.weight.k[0] // segments
    if segments > 1 and (length % _INT8_BLOCK or length > _LONGEST_SEGMENT[r.kind]):
        return None
    shifted = "Shifted" if r.kind is Kind.INT8_INT4 and p.bias is not None else ""
    form = "Segments" if segments > 1 else "Single"
    blocked = str(r.weight.blocked).lower()
    output = f"Int4Output<{_ELEMENT[p.output_dtype]}>"
    tiles = _SEGMENT_TILES if segments > 1 else _CONVERTED_TILES
    return TensorCoreProduct(f"Int8Int4<{blocked}>::{shifted}{form}", output, tiles)

"""One valid call of every kind, of the operators with torch_npu's signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import moe_jit

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
I8, I32, I64 = torch.int8, torch.int32, torch.int64
E, M, K, N = 3, 12, 64, 256  # experts, rows, k, n


def full(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype)


COUNTS = torch.tensor([4, 5, 3])
ROWS: dict[str, Any] = {"group_list": COUNTS, "group_list_type": 1, "group_type": 0, "split_item": 3}
INT8: dict[str, Any] = {"x": [full(I8, M, K)], "weight": [full(I8, E, K, N)], **ROWS}
BASES: dict[str, dict[str, Any]] = {
    "float": {"x": [full(F16, M, K)], "weight": [full(F16, E, K, N)], "bias": [full(F16, E, N)], **ROWS},
    "bf16": {"x": [full(BF16, M, K)], "weight": [full(BF16, E, K, N)], "bias": [full(F32, E, N)], **ROWS},
    "antiquant": {
        "x": [full(BF16, M, K)],
        "weight": [full(I8, E, K, N)],
        "antiquant_scale": [full(BF16, E, N)],
        "antiquant_offset": [full(BF16, E, N)],
        "bias": [full(F32, E, N)],
        **ROWS,
    },
    "antiquant4": {
        "x": [full(F16, M, K)],
        "weight": [full(I32, E, K, N // 8)],
        "antiquant_scale": [full(F16, E, 4, N)],
        "antiquant_offset": [full(F16, E, 4, N)],
        "bias": [full(F16, E, N)],
        **ROWS,
    },
    "int32": {**INT8, "bias": [full(I32, E, N)], "output_dtype": I32},
    "int8": {**INT8, "scale": [full(I64, E, N)], "bias": [full(I32, E, N)]},
    "static": {**INT8, "scale": [full(F32, E, N)], "bias": [full(I32, E, N)], "output_dtype": F16},
    "token": {
        **INT8,
        "scale": [full(BF16, E, N)],
        "bias": [full(BF16, E, N)],
        "per_token_scale": [full(F32, M)],
        "output_dtype": BF16,
    },
    "int8int4": {
        **ROWS,
        "x": [full(I8, M, 512)],
        "weight": [full(I32, E, 512, N // 8)],
        "scale": [full(I64, E, 2, N)],
        "bias": [full(F32, E, N)],
        "offset": [full(F32, E, 1, N)],
        "per_token_scale": [full(F32, M, 1)],
        "output_dtype": F16,
    },
    "int4": {
        **ROWS,
        "x": [full(I32, M, K // 8)],
        "weight": [full(I32, E, K, N // 8)],
        "scale": [full(I64, E, 2, N)],
        "per_token_scale": [full(F32, M)],
        "output_dtype": BF16,
    },
    "separate": {
        "x": [full(BF16, 4, K), full(BF16, 2, 2, 32)],
        "weight": [full(BF16, K, N), full(BF16, 32, 24)],
        "bias": [full(F32, N), full(F32, 24)],
        "group_type": -1,
    },
    "several": {
        "x": [full(BF16, 4, K), full(BF16, 2, K)],
        "weight": [full(BF16, K, N), full(BF16, K, N)],
        "bias": [full(F32, N), full(F32, N)],
        "group_type": 0,
        "split_item": 2,
    },
    "depth": {
        "x": [full(F32, K, M).T],
        "weight": [full(F32, K, N)],
        "group_list": torch.tensor([20, 44]),
        "group_list_type": 1,
        "group_type": 2,
        "split_item": 3,
    },
    "ends": {
        "x": [full(F32, M, K)],
        "weight": [full(F32, K, N)] * 3,
        "group_list": [4, 9, 12],
        "group_type": 0,
        "split_item": 0,
    },
    "finalize": {
        "x": full(I8, M, K),
        "w": full(I8, E, K, N),
        "group_list": COUNTS,
        "scale": full(F32, E, N),
        "bias": full(BF16, E, N),
        "pertoken_scale": full(F32, M),
        "shared_input": full(BF16, 3, N),
        "logit": full(F32, M),
        "row_index": full(I32, M),
        "shared_input_offset": 2,
        "output_bs": 6,
    },
    "finalize4": {
        "x": full(I8, M, 512),
        "w": full(I32, E, 512, N // 8),
        "group_list": COUNTS,
        "scale": full(I64, E, 2, N),
        "bias": full(F32, E, N),
        "offset": full(F32, E, 1, N),
        "pertoken_scale": full(F32, M),
        "logit": full(F32, M),
        "row_index": full(I64, M),
    },
    "swiglu": {
        "x": full(I32, M, K),
        "weight_scale": full(F32, E, K),
        "activation_scale": full(F32, M),
        "bias": full(I32, E, K),
        "quant_scale": full(F32, E, K // 2),
        "group_index": COUNTS,
        "quant_mode": 1,
    },
    "swiglu static": {
        "x": full(I32, M, K),
        "weight_scale": full(F32, K),
        "quant_scale": full(F32, 1, K // 2),
        "quant_offset": full(F32, 1, K // 2),
    },
    "swiglu bf16": {"x": full(BF16, M, K), "group_index": COUNTS, "quant_mode": 1},
    "dynamic": {
        "input": full(F16, M, K),
        "smooth_scales": full(F16, E, K),
        "group_index": torch.tensor([4, 9, 12], dtype=I32),
    },
    "quantize": {
        "self": full(F32, M, K),
        "scales": full(F32, K),
        "zero_points": full(F32, K),
        "dtype": torch.quint4x2,
        "axis": -1,
        "div_mode": False,
    },
    "trans": {"scale": full(F32, N), "offset": full(F32, N)},
    "pack": {"weight": full(I32, K, N)},
    "cast": {"input": full(I8, K, N), "acl_format": 29},
    "to_nz": {"tensor": full(I8, K, N)},
    "to_nd": {"tensor": full(I8, 8, 4, 16, 32), "k": K, "n": N},
}
FUNCTIONS = {
    "finalize": moe_jit.npu_grouped_matmul_finalize_routing,
    "swiglu": moe_jit.npu_dequant_swiglu_quant,
    "dynamic": moe_jit.npu_dynamic_quant,
    "quantize": moe_jit.npu_quantize,
    "trans": moe_jit.npu_trans_quant_param,
    "pack": moe_jit.npu_convert_weight_to_int4pack,
    "cast": moe_jit.npu_format_cast,
    "to_nz": moe_jit.nd_to_nz,
    "to_nd": moe_jit.nz_to_nd,
}
ANY_DTYPE = {("to_nz", "tensor"), ("cast", "input"), ("to_nd", "tensor")}
ANY_SHAPE = ANY_DTYPE | {
    ("quantize", "self"),
    ("dynamic", "input"),
    ("trans", "scale"),
    ("swiglu bf16", "x"),
    ("depth", "group_list"),
    ("pack", "weight"),
}


def function_of(base: str) -> Callable[..., Any]:
    return next((f for name, f in FUNCTIONS.items() if base.startswith(name)), moe_jit.npu_grouped_matmul)

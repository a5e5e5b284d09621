"""Every invalid call raises an error that names the argument."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from support.ascend_calls import (
    ANY_DTYPE,
    ANY_SHAPE,
    BASES,
    BF16,
    COUNTS,
    F16,
    F32,
    F64,
    I8,
    I32,
    I64,
    E,
    K,
    M,
    N,
    full,
    function_of,
)

import moe_jit


class Case(NamedTuple):
    base: str
    change: dict[str, Any]
    name: str  # what the message must contain
    error: type[Exception] = ValueError

    @property
    def label(self) -> str:
        (argument, value), *_ = self.change.items()
        shown = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        return f"{self.base}-{argument}-{shown}".replace("\n", " ")[:60]


def generated() -> list[Case]:
    """For each tensor of each valid call: another type, dtype, device and shape; for lists another length."""
    cases = []
    for base, arguments in BASES.items():
        for name, value in arguments.items():
            is_list = isinstance(value, list) and isinstance(value[0], torch.Tensor)
            tensor = value[0] if is_list else value
            if not isinstance(tensor, torch.Tensor):
                continue

            def wrap(one: Any, value: Any = value, is_list: bool = is_list) -> Any:
                return [one, *value[1:]] if is_list else one

            cases.append(Case(base, {name: wrap("text")}, name, TypeError))
            cases.append(Case(base, {name: 5}, name, TypeError))
            if (base, name) not in ANY_DTYPE:
                cases.append(Case(base, {name: wrap(tensor.to(F64))}, name))
                sparse = tensor.to_sparse()
                cases.append(Case(base, {name: wrap(sparse)}, name))
            if (
                len(arguments) > 1
                and name not in ("x", "input", "self", "tensor")
                and base not in ("trans", "pack")
            ):
                cases.append(Case(base, {name: wrap(tensor.to("meta"))}, name))
            if (base, name) not in ANY_SHAPE and name not in ("x", "weight", "w"):
                cases.append(Case(base, {name: wrap(tensor.new_ones((*tensor.shape, 2, 2)))}, name))
            if is_list and name not in ("x", "weight"):
                cases.append(Case(base, {name: [*value, value[0]]}, name))
    return cases


def tensor_rules() -> list[Case]:
    long = full(F32, 1, 65536)
    return [
        # lists
        Case("float", {"x": []}, "x"),
        Case("float", {"weight": []}, "weight"),
        Case("float", {"x": full(F16, M, K)}, "x", TypeError),
        Case("float", {"weight": None}, "weight", TypeError),
        Case("float", {"bias": "text"}, "bias", TypeError),
        Case("float", {"x": [full(F16, M, K), full(BF16, M, K)]}, "x[1]"),
        Case("float", {"weight": [full(F16, K, N), full(BF16, K, N), full(F16, K, N)]}, "weight[1]"),
        Case("separate", {"x": [full(BF16, 2, 2)] * 129}, "x"),
        Case("separate", {"weight": [full(BF16, 2, 2)] * 129}, "weight"),
        Case("separate", {"weight": [full(BF16, K, N)]}, "weight"),
        Case("float", {"activation_input": [full(F32, 1)]}, "activation_input"),
        Case("float", {"activation_quant_scale": [full(F32, 1)]}, "activation_quant_scale"),
        Case("float", {"activation_quant_offset": [full(F32, 1)]}, "activation_quant_offset"),
        *(Case("float", {name: 1}, name) for name in ("x_dtype", "weight_dtype", "scale_dtype")),
        Case("float", {"per_token_scale_dtype": 1}, "per_token_scale_dtype"),
        # dtypes of operands
        Case("float", {"x": [full(F64, M, K)]}, "x"),
        Case("float", {"weight": [full(F32, E, K, N)]}, "weight"),
        Case("int8", {"weight": [full(F16, E, K, N)]}, "weight"),
        Case("int4", {"weight": [full(I8, E, K, N)]}, "weight"),
        Case("float", {"x": [full(F32, M, K)], "weight": [full(I8, E, K, N)]}, "weight"),
        # sizes
        Case("float", {"weight": [full(F16, E, K + 1, N)]}, "weight"),
        Case("float", {"weight": [full(F16, E, 0, N)]}, "weight"),
        Case("float", {"weight": [full(F16, N)]}, "weight"),
        Case("float", {"weight": [full(F16, 1, E, K, N)]}, "weight"),
        Case("float", {"weight": [full(F16, E, K, 2 * N)[..., ::2]]}, "weight"),
        Case("float", {"weight": [full(F16, E, K, 2 * N)[..., :N]]}, "weight"),
        Case("float", {"x": [full(F16, M, 0)]}, "x"),
        Case("float", {"x": [full(F16, M, K, 1)]}, "x"),
        Case("float", {"x": [full(F16, M)]}, "x"),
        Case("separate", {"x": [full(BF16, K), full(BF16, 2, 32)]}, "x"),
        Case("separate", {"x": [full(BF16, 1, 1, 1, 1, 1, 1, K), full(BF16, 2, 32)]}, "x"),
        Case("ends", {"x": [full(F32, 12, 65536)], "weight": [full(F32, 65536, 1)] * 3}, "x"),
        Case("ends", {"x": [full(F32, 12, 1)], "weight": [long] * 3}, "weight"),
        Case("several", {"x": [full(BF16, 4, K), full(BF16, 2, 32)]}, "x"),
        Case("several", {"weight": [full(BF16, K, N), full(BF16, K, 8)], "bias": None}, "weight"),
        Case("several", {"weight": [full(BF16, K, N), full(BF16, N, K).T]}, "weight"),
        # blocked weights
        Case("float", {"weight": [full(F16, E, 16, 3, 16, 16)]}, "weight"),
        Case("float", {"weight": [full(F16, E, 15, 4, 16, 16)]}, "weight"),
        Case("float", {"weight": [full(F16, E, 16, 4, 16, 32)]}, "weight"),
        Case("float", {"weight": [full(F16, E, 16, 4, 8, 16)]}, "weight"),
        Case("float", {"weight": [full(F16, E, 4, 16, 16, 16).transpose(1, 2)]}, "weight"),
        Case("int8", {"weight": [full(I8, E, 8, 4, 16, 16)]}, "weight"),
        Case("int4", {"weight": [full(I32, E, 4, 4, 8, 16).transpose(-1, -2)]}, "weight"),
        # experts
        Case("float", {"group_list": torch.tensor([4, 8])}, "group_list"),
        Case("depth", {"weight": [full(F32, 2, K, N)]}, "weight"),
        Case("depth", {"weight": [full(F32, 20, N)] * 3}, "weight"),
        Case("depth", {"weight": [full(F32, 20, N), full(F32, 40, N)]}, "weight"),
        Case("depth", {"weight": [full(F32, N, K).T]}, "weight"),
        Case(
            "depth",
            {"weight": [full(F32, 44, N), full(F32, 20, N)], "group_list": [20, 64], "group_list_type": 0},
            "weight",
        ),
        Case("depth", {"weight": [full(F32, N // 8, K // 16, 16, 8)]}, "weight"),
        Case("depth", {"x": [full(F32, M, K)] * 2}, "x"),
        Case("depth", {"bias": [full(F32, N)]}, "bias"),
    ]


def choice_rules() -> list[Case]:
    return [
        *(Case("float", {"split_item": v}, "split_item") for v in (-1, 4)),
        *(Case("float", {"split_item": v}, "split_item", TypeError) for v in (1.0, False, [], full(F32, 2))),
        *(Case("float", {"group_type": v}, "The group type must be -1, 0 or 2") for v in (-2, 1, 3)),
        Case("float", {"group_type": "0"}, "group_type", TypeError),
        Case("float", {"group_type": None}, "Requires manual passing group_type, current is None."),
        *(Case("float", {"group_list_type": v}, "group_list_type") for v in (-1, 3)),
        Case("float", {"group_list_type": True}, "group_list_type", TypeError),
        *(Case("static", {"act_type": v}, "act_type") for v in (-1, 3, 6, 7)),
        *(Case("static", {"act_type": v}, "act_type", TypeError) for v in ("relu", True, full(F32, 2))),
        *(Case(base, {"act_type": 1}, "act_type") for base in ("float", "antiquant", "antiquant4")),
        Case("float", {"tuning_config": 5}, "tuning_config", TypeError),
        Case("float", {"tuning_config": [1.5]}, "tuning_config", TypeError),
        *(Case("float", {"tuning_config": [v]}, "tuning_config") for v in (-1, M + 1)),
        # output_dtype
        *(Case("float", {"output_dtype": v}, "output_dtype") for v in (BF16, I8, F32)),
        Case("antiquant", {"output_dtype": F16}, "output_dtype"),
        *(Case("int8", {"output_dtype": v}, "output_dtype") for v in (F32, torch.uint8)),
        *(Case("int8", {"output_dtype": v}, "output_dtype", TypeError) for v in (1, [], "int8")),
        *(Case("int8int4", {"output_dtype": v}, "output_dtype") for v in (None, I8, F32, I32)),
        *(Case("int4", {"output_dtype": v}, "output_dtype") for v in (None, F32)),
        # group_list
        Case("float", {"group_list": None}, "group_list"),
        Case("float", {"group_list": COUNTS.int()}, "group_list"),
        Case("float", {"group_list": torch.ones(1025, dtype=I64)}, "group_list"),
        Case("float", {"group_list": torch.ones(0, dtype=I64)}, "group_list"),
        Case("float", {"group_list": (1, "2")}, "group_list", TypeError),
        Case("int8", {"group_list_type": 2}, "group_list"),
        Case("int8", {"group_list": torch.ones(3, 3, dtype=I64), "group_list_type": 2}, "group_list"),
        Case("float", {"group_list": torch.ones(3, 2, dtype=I64), "group_list_type": 2}, "group_list_type"),
        Case("int4", {"group_list": torch.ones(3, 2, dtype=I64), "group_list_type": 2}, "group_list_type"),
        Case("int8int4", {"group_list_type": 0}, "group_list_type"),
        Case(
            "int32",
            {
                "group_list": torch.tensor([[1, 9], [0, 2], [2, 1]]),
                "group_list_type": 2,
                "weight": [full(I8, K, N)] * 3,
                "bias": None,
                "split_item": 0,
            },
            "group_list_type",
        ),
        Case("ends", {"group_list": torch.tensor([4, 9, 13])}, "group_list"),
        Case("ends", {"group_list": torch.tensor([4, 9, 2**62]), "group_list_type": 1}, "group_list"),
        Case("ends", {"group_list": [9, 4, 12]}, "group_list"),
        Case("ends", {"group_list": [-1, 4, 12]}, "group_list"),
        Case("ends", {"group_list": [4, 9, 11]}, "group_list"),
        Case("ends", {"group_list": [4, 9, 13]}, "group_list"),
        Case("ends", {"group_list": [4, 12]}, "weight"),
        Case("ends", {"group_list": []}, "group_list"),
        Case("ends", {"group_list": [12] * 129}, "group_list"),
        Case("ends", {"group_list_type": 1}, "group_list_type"),
        Case("ends", {"group_list": torch.tensor([4, 12])}, "weight"),
        Case("separate", {"group_list": torch.tensor([4, 8])}, "group_list"),
        Case("separate", {"split_item": 2}, "split_item"),
        Case("several", {"split_item": 0}, "split_item"),
        Case("several", {"group_list": [6]}, "group_list"),
        Case("several", {"group_list": [4, 6], "split_item": 0}, "x"),
    ]


def dtype_row_rules() -> list[Case]:
    floats = ("scale", "offset", "antiquant_scale", "antiquant_offset", "per_token_scale")
    return [
        *(Case("float", {name: [full(F32, E, N)]}, name) for name in floats),
        *(
            Case("antiquant", {name: [full(F32, E, N)]}, name)
            for name in ("scale", "offset", "per_token_scale")
        ),
        *(
            Case("int8", {name: [full(F32, E, N)]}, name)
            for name in ("offset", "antiquant_scale", "antiquant_offset")
        ),
        *(
            Case("int4", {n: [full(F32, E, N)]}, n)
            for n in ("bias", "offset", "antiquant_scale", "antiquant_offset")
        ),
        *(
            Case("int8int4", {name: [full(F32, E, N)]}, name)
            for name in ("antiquant_scale", "antiquant_offset")
        ),
        Case("float", {"bias": [full(F32, E, N)]}, "bias"),
        Case("bf16", {"bias": [full(BF16, E, N)]}, "bias"),
        Case("float", {"bias": [full(F16, E, N + 1)]}, "bias"),
        Case("float", {"bias": [full(F16, E + 1, N)]}, "bias"),
        Case("float", {"bias": [full(F16, N)]}, "bias"),
        Case("antiquant", {"antiquant_scale": None}, "antiquant_scale"),
        Case("antiquant", {"antiquant_scale": [full(BF16, E, 2, N)]}, "antiquant_scale"),
        Case("antiquant", {"antiquant_scale": [full(F16, E, N)]}, "antiquant_scale"),
        Case("antiquant", {"antiquant_offset": [full(BF16, E, N + 1)]}, "antiquant_offset"),
        Case("antiquant", {"group_type": 2}, "group_type"),
        Case("antiquant4", {"antiquant_scale": [full(F16, E, 5, N)]}, "antiquant"),
        Case(
            "separate",
            {
                "weight": [full(I32, K, N // 8), full(I32, 32, 3)],
                "antiquant_scale": [full(BF16, 2, N), full(BF16, 2, 24)],
            },
            "antiquant_scale",
        ),
        Case("antiquant4", {"antiquant_offset": [full(F16, E, 2, N)]}, "antiquant_offset"),
        Case(
            "antiquant4",
            {
                "x": [full(F16, M, 24)],
                "weight": [full(I32, E, N, 3).mT],
                "antiquant_scale": [full(F16, E, 8, N)],
                "antiquant_offset": None,
            },
            "antiquant_scale",
        ),
        Case("int32", {"scale": [full(F32, E, N)]}, "scale"),
        Case("int32", {"per_token_scale": [full(F32, M)]}, "per_token_scale"),
        Case("int32", {"bias": [full(BF16, E, N)]}, "bias"),
        Case("int8", {"scale": None}, "scale"),
        Case("int8", {"scale": [full(F32, E, N)]}, "scale"),
        Case("int8", {"per_token_scale": [full(F32, M)]}, "per_token_scale"),
        Case("int8", {"group_type": 2}, "group_type"),
        *(
            Case(base, {"x": [full(I8, 6, K)] * 3, "weight": [full(I8, K, N)] * 3, "group_list": None}, "x")
            for base in ("int8", "int32", "token")
        ),
        Case("static", {"scale": None}, "scale"),
        Case("static", {"scale": [full(BF16, E, N)]}, "scale"),
        Case("static", {"scale": [full(F32, E, N - 1)]}, "scale"),
        Case("static", {"bias": [full(F16, E, N)]}, "bias"),
        Case("token", {"scale": [full(I64, E, N)]}, "scale"),
        Case("token", {"per_token_scale": [full(F32, M + 1)]}, "per_token_scale"),
        Case("token", {"per_token_scale": [full(F32, M, 1)]}, "per_token_scale"),
        Case("token", {"per_token_scale": [full(BF16, M)]}, "per_token_scale"),
        Case("token", {"per_token_scale": None}, "bias"),
        Case("int8int4", {"scale": None}, "scale"),
        Case("int8int4", {"scale": [full(I64, E, 4, N)]}, "scale"),
        Case("int8int4", {"scale": [full(I64, E, 3, N)]}, "scale"),
        Case("int8int4", {"scale": [full(F32, E, 2, N)]}, "scale"),
        Case("int8int4", {"offset": [full(F32, E, N)]}, "offset"),
        Case("int8int4", {"output_dtype": BF16}, "offset"),
        Case("int8int4", {"bias": [full(BF16, E, N)]}, "bias"),
        Case("int8int4", {"weight": [full(I32, 512, N // 8)] * 3}, "weight"),
        Case("int8int4", {"weight": [full(I32, E, N, 512 // 8).mT]}, "weight"),
        Case("int8int4", {"x": [full(I8, M, 32)], "weight": [full(I32, E, 32, N // 8)]}, "x"),
        Case("int8int4", {"x": [full(I8, M, 18496)], "weight": [full(I32, E, 18496, 1)]}, "x"),
        Case(
            "int8int4",
            {"weight": [full(I32, E, 1, 32, 16, 8)], "scale": [full(I64, E, 2, 40)]},
            "n of weight",
        ),
        Case("int8int4", {"group_type": 2}, "group_type"),
        Case("int4", {"scale": None}, "scale"),
        Case("int4", {"scale": [full(I64, E, 5, N)]}, "scale"),
        Case("int4", {"scale": [full(I64, E, 64, N)]}, "scale"),
        Case("int4", {"scale": [full(F32, E, 2, N)]}, "scale"),
        Case("int4", {"weight": [full(I32, K, N // 8)] * 3}, "weight"),
        Case("int4", {"weight": [full(I32, E, N, K // 8).mT]}, "weight"),
        Case("int4", {"per_token_scale": [full(F32, M + 1)]}, "per_token_scale"),
        Case("int4", {"per_token_scale": [full(F32, M), full(F32, M)]}, "per_token_scale"),
    ]


def finalize_rules() -> list[Case]:
    return [
        *(Case("finalize", {n: full(F32, 1)}, n) for n in ("antiquant_scale", "antiquant_offset", "offset")),
        *(Case("finalize", {n: 1}, n) for n in ("x_dtype", "w_dtype", "scale_dtype", "pertoken_scale_dtype")),
        *(Case("finalize", {"dtype": v}, "The dtype should be float") for v in (F16, BF16)),
        Case("finalize", {"dtype": "float32"}, "dtype", TypeError),
        Case("finalize", {"x": full(I8, 0, K)}, "x"),
        Case("finalize", {"x": full(I8, M, K, 1)}, "x"),
        Case("finalize", {"x": full(I8, M, 24), "w": full(I8, E, 24, N)}, "x.shape[-1]"),
        Case("finalize", {"x": full(I8, M, 32)}, "w.shape"),
        Case("finalize", {"w": full(I8, K, N)}, "w"),
        Case("finalize", {"w": full(I8, E, K, 272), "scale": full(F32, E, 272)}, "n of w"),
        Case("finalize", {"w": full(I8, E, K, 128), "scale": full(F32, E, 128)}, "n of w"),
        Case("finalize", {"w": full(I8, E, 8, 4, 16, 16)}, "w"),
        Case("finalize", {"group_list": None}, "group_list", TypeError),
        Case("finalize", {"group_list": torch.tensor([4, 8])}, "group_list"),
        *(Case("finalize", {"group_list_type": v}, "group_list_type") for v in (-1, 2)),
        Case("finalize", {"scale": None}, "scale"),
        Case("finalize", {"scale": full(F32, E, 1, N)}, "scale"),
        Case("finalize", {"scale": full(I64, E, N)}, "scale"),
        Case("finalize", {"bias": full(F32, E, N)}, "bias"),
        Case("finalize", {"row_index": None}, "row_index", TypeError),
        Case("finalize", {"row_index": full(I32, M + 1)}, "row_index"),
        Case("finalize", {"logit": full(F32, M - 1)}, "logit"),
        Case("finalize", {"logit": full(BF16, M)}, "logit"),
        Case("finalize", {"pertoken_scale": full(F32, M, 1)}, "pertoken_scale"),
        Case("finalize", {"shared_input": full(BF16, 7, N)}, "shared_input"),
        Case("finalize", {"shared_input": full(BF16, 3, N - 1)}, "shared_input"),
        Case("finalize", {"shared_input": full(BF16, 0, N)}, "shared_input"),
        *(Case("finalize", {"shared_input_offset": v}, "shared_input_offset") for v in (-1, 4)),
        Case("finalize", {"shared_input_offset": 1.0}, "shared_input_offset", TypeError),
        *(
            Case("finalize", {"shared_input_weight": v}, "shared_input_weight")
            for v in (math.nan, math.inf, 1e39, 10**400)
        ),
        Case("finalize", {"shared_input_weight": "1"}, "shared_input_weight", TypeError),
        *(Case("finalize", {"output_bs": v}, "output_bs") for v in (-1, M + 1)),
        Case("finalize", {"output_bs": 2.0}, "output_bs", TypeError),
        *(Case("finalize", {"tuning_config": [v]}, "tuning_config") for v in (-1, M + 1)),
        Case("finalize4", {"row_index": full(I32, M)}, "row_index"),
        Case("finalize4", {"scale": full(I64, E, 4, N)}, "scale"),
        Case("finalize4", {"scale": full(F32, E, N)}, "scale"),
        Case("finalize4", {"bias": full(BF16, E, N)}, "bias"),
        Case("finalize4", {"offset": full(F32, E, N)}, "offset"),
        Case("finalize4", {"w": full(I32, E, N, 64).mT}, "w"),
        Case("finalize4", {"x": full(I8, M, 128), "w": full(I32, E, 128, N // 8)}, "x.shape[-1]"),
        Case("finalize4", {"x": full(I8, M, 520), "w": full(I32, E, 520, N // 8)}, "x.shape[-1]"),
        Case("finalize4", {"w": full(I32, E, 512, 8)}, "n of w"),
    ]


def row_rules() -> list[Case]:
    return [
        Case("swiglu", {"x": full(I32, K)}, "x"),
        Case("swiglu", {"x": full(I32, M, 63)}, "x.shape[-1]"),
        Case("swiglu", {"x": full(I32, M, 0)}, "x.shape[-1]"),
        Case("swiglu", {"weight_scale": None}, "weight_scale"),
        Case("swiglu", {"weight_scale": full(F32, K)}, "weight_scale"),
        Case("swiglu", {"weight_scale": full(F32, 2, K)}, "weight_scale"),
        Case("swiglu", {"activation_scale": full(F32, M + 1)}, "activation_scale"),
        Case("swiglu", {"activation_scale": full(F32, 1, M)}, "activation_scale"),
        Case("swiglu", {"bias": full(I32, 2, K)}, "bias"),
        Case("swiglu", {"quant_scale": full(F32, K // 2)}, "quant_scale"),
        Case("swiglu", {"quant_scale": full(F32, E)}, "quant_scale"),
        Case("swiglu", {"quant_offset": full(F32, E, K // 2)}, "quant_offset"),
        *(Case("swiglu", {"quant_mode": v}, "quant_mode") for v in (-1, 2)),
        Case("swiglu", {"quant_mode": True}, "quant_mode", TypeError),
        Case("swiglu", {"activate_left": 1}, "activate_left", TypeError),
        *(Case("swiglu", {"swiglu_mode": v}, "swiglu_mode") for v in (-1, 4)),
        *(Case("swiglu", {"clamp_limit": v}, "clamp_limit") for v in (0.0, -1.0, math.inf, math.nan)),
        *(Case("swiglu", {"glu_alpha": v}, "glu_alpha") for v in (math.inf, math.nan)),
        *(Case("swiglu", {"glu_bias": v}, "glu_bias") for v in (-math.inf, math.nan)),
        Case("swiglu", {"glu_bias": "1"}, "glu_bias", TypeError),
        Case("swiglu", {"dst_type": F16}, "dst_type"),
        Case("swiglu", {"dst_type": full(I8, 2)}, "dst_type", TypeError),
        Case("swiglu", {"round_mode": 1}, "round_mode"),
        Case("swiglu", {"activate_dim": 0}, "activate_dim"),
        Case("swiglu", {"group_index": torch.ones(3, 3, dtype=I64)}, "group_index"),
        Case("swiglu", {"group_index": torch.ones(0, dtype=I64)}, "group_index"),
        Case("swiglu", {"group_index": torch.ones(3, 2, dtype=I64)}, "bias"),
        Case("swiglu bf16", {"group_index": torch.ones(3, 2, dtype=I64), "swiglu_mode": 1}, "swiglu_mode"),
        Case("swiglu bf16", {"x": full(F16, M, K)}, "x"),
        Case("swiglu bf16", {"bias": full(F32, K)}, "bias"),
        Case("swiglu static", {"quant_offset": full(F32, 1)}, "quant_offset"),
        Case("swiglu static", {"quant_scale": full(F32, K)}, "quant_scale"),
        Case("dynamic", {"input": full(F16, K)}, "input"),
        Case("dynamic", {"input": full(F16, M, 0)}, "input"),
        Case("dynamic", {"input": full(F16, M, 63), "dst_type": torch.quint4x2}, "input"),
        Case("dynamic", {"dst_type": F16}, "dst_type"),
        Case("dynamic", {"dst_type": full(I8, 2)}, "dst_type", TypeError),
        Case("dynamic", {"quant_mode": "pertensor"}, "quant_mode"),
        Case("dynamic", {"quant_mode": 1}, "quant_mode", TypeError),
        Case("dynamic", {"dst_type_max": 2.0}, "dst_type_max"),
        Case("dynamic", {"smooth_scales": None}, "smooth_scales"),
        Case("dynamic", {"smooth_scales": full(BF16, E, K)}, "smooth_scales"),
        Case("dynamic", {"smooth_scales": full(F16, K)}, "smooth_scales"),
        Case("dynamic", {"group_index": torch.ones(1025, dtype=I32)}, "group_index"),
        Case("quantize", {"dtype": torch.int32}, "dtype"),
        Case("quantize", {"dtype": torch.quint4x2, "div_mode": True}, "dtype"),
        Case("quantize", {"div_mode": 1}, "div_mode", TypeError),
        *(Case("quantize", {"axis": v}, "axis") for v in (-3, 2)),
        Case("quantize", {"axis": 0.0}, "axis", TypeError),
        Case("quantize", {"self": full(F32)}, "self"),
        Case("quantize", {"scales": full(F32, K + 1)}, "scales"),
        Case("quantize", {"self": full(F32, M, 60), "scales": full(F32, 1), "zero_points": None}, "self"),
        Case("trans", {"round_mode": 2}, "round_mode"),
        Case("trans", {"scale": full(F32, 0)}, "scale"),
        Case("trans", {"scale": full(F32, 1, 1, N)}, "scale"),
        Case("trans", {"offset": full(F32, N - 1)}, "offset"),
        Case("pack", {"weight": full(I32, K, 12)}, "weight"),
        Case("pack", {"inner_k_tiles": -1}, "inner_k_tiles"),
        *(Case("cast", {"acl_format": v}, "acl_format") for v in (0, 30)),
        Case("cast", {"customize_dtype": F16}, "customize_dtype"),
        Case("cast", {"input": full(I8, 5)}, "input"),
        Case("to_nz", {"tensor": full(I8, 5)}, "tensor"),
        Case("to_nz", {"tensor": full(I8, 5, 5).to_sparse()}, "tensor"),
        Case("to_nd", {"tensor": full(I8, 8, 4, 16, 16)}, "tensor"),
        Case("to_nd", {"tensor": full(I8, 4, 16)}, "tensor"),
        *(Case("to_nd", {name: v}, name) for name in ("k", "n") for v in (0, 300)),
    ]


CASES = [*generated(), *tensor_rules(), *choice_rules(), *dtype_row_rules(), *finalize_rules(), *row_rules()]


def test_enough_cases():
    assert len(CASES) > 400


@pytest.mark.parametrize("base", BASES)
def test_bases_are_valid(base: str):
    function_of(base)(**BASES[base])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_invalid(case: Case):
    with pytest.raises(case.error) as caught:
        function_of(case.base)(**(BASES[case.base] | case.change))
    assert type(caught.value) is case.error
    assert str(caught.value).startswith(case.name)


def test_message_says_what_is_expected_and_given():
    with pytest.raises(
        ValueError, match=r"^bias must be of shape .*3 \(experts of weight\), 256 \(n of weight\)"
    ):
        moe_jit.npu_grouped_matmul(**(BASES["float"] | {"bias": [full(F16, E, 7)]}))


@pytest.mark.parametrize("base", ["float", "finalize", "swiglu", "dynamic"])
def test_devices_without_a_module_are_named(base: str):
    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(item) for item in value]
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    with pytest.raises(ValueError, match=r"must be on a device that npu_\w+ supports \(.*cpu.*\), got meta"):
        function_of(base)(**{name: moved(value) for name, value in BASES[base].items()})

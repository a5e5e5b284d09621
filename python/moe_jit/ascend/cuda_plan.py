"""Which module computes an npu_grouped_matmul on a Hopper GPU, from the metadata of the call."""

from __future__ import annotations

import torch

from moe_jit.jit import ModuleSpec, Unit

from .matmul_arguments import Kind, Request
from .matmul_rules import Parameters

_FORMAT = {torch.float16: "F16", torch.bfloat16: "Bf16", torch.float32: "F32"}


def _direct_product(r: Request) -> str:
    """A type of include/moe_jit/cuda/direct/products.cuh."""
    if r.kind is Kind.FLOAT:
        return f"{_FORMAT[r.x[0].dtype]}Product"
    if r.kind is Kind.ANTIQUANT:
        return f"{_FORMAT[r.x[0].dtype]}{'Int4' if r.weight.packed else 'Int8'}Product"
    return {Kind.INT8: "Int8Product", Kind.INT8_INT4: "Int8Int4Product", Kind.INT4: "Int4Product"}[r.kind]


def direct_module(r: Request) -> ModuleSpec:
    """CUDA cores: any layout, alignment and group type."""
    units = (
        Unit("cuda/grouped_matmul_direct.cu", (("MOE_JIT_PRODUCT", _direct_product(r)),)),
        Unit("cuda/grouped_matmul_direct.cpp"),
    )
    return ModuleSpec("grouped_matmul_direct_sm90a", units, "sm_90a")


def module_for(r: Request, p: Parameters) -> ModuleSpec:
    """The fastest module that takes the call."""
    return direct_module(r)

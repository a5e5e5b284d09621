"""Which calls share measurements."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shapes import H200, problem

from moe_jit.autotuner.key import Key, kernel_set, key_of
from moe_jit.enums import ActivationType, RoutingMethodType, WeightLayout
from moe_jit.jit.spec import SourceTree, package_sources
from moe_jit.problem import Device, MoEProblem

DTYPES = st.sampled_from([None, torch.float32, torch.bfloat16])
SMALL = st.integers(1, 3)
DEVICES = st.builds(
    Device,
    kind=st.just("cuda"),
    index=st.integers(0, 1),
    target=st.just("sm_90a"),
    sm_count=st.sampled_from([78, 132]),
    name=st.sampled_from(["NVIDIA H100 PCIe", "NVIDIA H200"]),
)
PROBLEMS = st.builds(
    MoEProblem,
    device=DEVICES,
    num_tokens=SMALL,
    hidden_size=SMALL,
    intermediate_size=SMALL,
    num_experts=SMALL,
    num_local_experts=SMALL,
    local_expert_offset=SMALL,
    top_k=SMALL,
    n_group=SMALL,
    topk_group=SMALL,
    routing_method=st.sampled_from([None, *RoutingMethodType]),
    activation=st.sampled_from(list(ActivationType)),
    weight_layout=st.sampled_from(list(WeightLayout)),
    fast_accum=st.booleans(),
    logits_dtype=DTYPES,
    bias_dtype=DTYPES,
    do_finalize=st.booleans(),
    scale_input=st.booleans(),
    has_replay=st.booleans(),
    enable_pdl=st.booleans(),
    tune_max_num_tokens=SMALL,
)
SHARED = ("num_tokens", "tune_max_num_tokens", "local_expert_offset", "do_finalize", "has_replay")


def relevant(call: MoEProblem) -> tuple[Any, ...]:
    """Written from the other side than the key: what may differ between calls that share."""
    same = dict.fromkeys(SHARED, 1)
    device = dataclasses.replace(call.device, index=0)
    return dataclasses.astuple(dataclasses.replace(call, device=device, **same))


@given(PROBLEMS, PROBLEMS)
def test_calls_share_exactly_when_all_relevant_facts_agree(a: MoEProblem, b: MoEProblem) -> None:
    assert (key_of(a) == key_of(b)) == (relevant(a) == relevant(b))


@given(PROBLEMS, PROBLEMS, st.data())
def test_one_fact_decides(a: MoEProblem, b: MoEProblem, data: st.DataObject) -> None:
    """Random pairs differ in many facts at once; this changes a single one."""
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(MoEProblem)]))
    c = dataclasses.replace(a, **{name: getattr(b, name)})
    assert (key_of(a) == key_of(c)) == (relevant(a) == relevant(c))


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 4096},
        {"intermediate_size": 1536},
        {"num_experts": 256},
        {"num_local_experts": 64},
        {"top_k": 4},
        {"activation": ActivationType.Geglu},
        {"weight_layout": WeightLayout.W3W1},
        {"scale_input": True},
        {"enable_pdl": False},
        {"logits_dtype": torch.bfloat16},
        {"bias_dtype": torch.float32},
        {"routing_method": None},
        {"n_group": 8, "topk_group": 4},
        {"device": dataclasses.replace(H200, name="NVIDIA H100 80GB HBM3")},
        {"device": dataclasses.replace(H200, sm_count=78)},
    ],
)
def test_each_of_these_separates(change: dict[str, Any]) -> None:
    assert key_of(problem(**change)) != key_of(problem())


@pytest.mark.parametrize(
    "change",
    [
        {"num_tokens": 4096},
        {"tune_max_num_tokens": 64},
        {"local_expert_offset": 64},
        {"do_finalize": False},
        {"has_replay": True},
        {"device": dataclasses.replace(H200, index=3)},
    ],
)
def test_none_of_these_separates(change: dict[str, Any]) -> None:
    assert key_of(problem(**change)) == key_of(problem())


def test_a_fact_without_stable_text_is_refused() -> None:
    with pytest.raises(TypeError, match="no stable text"):
        key_of(problem(hidden_size=object()))


def test_text_is_canonical() -> None:
    assert Key.of({"b": 1, "a": None}) == Key.of({"a": None, "b": 1})
    assert Key.of({"a": 1}) != Key.of({"a": True})
    assert Key.of({"a": 1}) != Key.of({"a": "1"})
    assert Key.of(key_of(problem()).facts) == key_of(problem())


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    for name in ("include", "csrc"):
        shutil.copytree(package_sources().root / name, tmp_path / name)
    return SourceTree(tmp_path)


@pytest.mark.parametrize("name", ["csrc/cuda/experts.cu", "include/moe_jit/cuda/gemm/tile.cuh"])
def test_changed_kernels_have_their_own_measurements(tree: SourceTree, name: str) -> None:
    before = kernel_set(tree)
    assert key_of(problem(), before) != key_of(problem(), "another")
    path = tree.root / name
    os.utime(path, (0, 0))
    assert kernel_set(SourceTree(tree.root)) == before
    path.write_text(path.read_text() + "\n")
    assert kernel_set(SourceTree(tree.root)) != before


def test_kernel_set_does_not_depend_on_where_the_sources_are(tree: SourceTree) -> None:
    assert kernel_set(tree) == kernel_set(package_sources())

"""Every check of the emulator refuses a kernel that breaks its rule, and passes the same kernel put right."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# What the wrong kernel's error says: core, call and problem.
RULES = {
    "capacity_ub": "AIV 0: TPipe::InitBuffer: UB over capacity: .*188192 more asked for, 188160 available",
    "capacity_l1": "AIC 0: TPipe::InitBuffer: L1 over capacity",
    "capacity_l0a": "AIC 0: TPipe::InitBuffer: L0A over capacity",
    "capacity_l0b": "AIC 0: TPipe::InitBuffer: L0B over capacity",
    "capacity_l0c": "AIC 0: TPipe::InitBuffer: L0C over capacity",
    "capacity_bt": "AIC 0: TPipe::InitBuffer: BT over capacity",
    "capacity_fb": "AIC 0: TPipe::InitBuffer: FB over capacity",
    "capacity_of_all_buffers": "UB over capacity: 131072 bytes in use, 65536 more asked for",
    "alignment_ub": "AIV 0: fill: misaligned: start 16, .* multiples of 32 bytes .VECIN tensor .* UB byte 16",
    "alignment_of_a_slice": "misaligned: start 16, .* multiples of 32 bytes",
    "alignment_l1": "AIC 0: copy: misaligned: .* multiples of 32 bytes .A1 tensor",
    "alignment_l0a": "misaligned: start 256, .* multiples of 512 bytes .A2 tensor",
    "alignment_l0b": "misaligned: start 256, .* multiples of 512 bytes .B2 tensor",
    "alignment_l0c_product": "multiply: misaligned: start 512, .* multiples of 1024 bytes .CO1 tensor",
    "alignment_l0c_result": "take: misaligned: start 32, .* multiples of 64 bytes .CO1 tensor",
    "alignment_bt": "misaligned: start 32, .* multiples of 64 bytes .C2 tensor",
    "alignment_fb": "misaligned: start 64, .* multiples of 128 bytes .C2PIPE2GM tensor",
    "bounds_of_a_tensor": "fill: out of bounds: bytes up to 288 of a tensor of 256 bytes .VECIN",
    "bounds_of_a_slice": "fill: out of bounds: bytes up to 160 of a tensor of 128 bytes",
    "bounds_of_a_memory": "fill: out of bounds: .* at UB byte 187904",
    "bounds_of_a_buffer": "fill: out of bounds: .*buffer 0 of TBuf<VECCALC> of .*memory_cases.cpp:[0-9]+",
    "bounds_of_scratch": "TBuf::Get: out of bounds: 288 of 256 bytes",
    "bounds_of_a_buffer_in_gm": "out of bounds: bytes 16160 to 16416 of 'workspace', which has 16384",
    "bounds_of_a_tensor_in_gm": r"out of bounds: bytes 256 to 544 of 'x', .*\(tensor: 256\)",
    "gm_not_registered": "copy: GM address lies in no registered buffer",
    "write_to_an_input": "copy: writes to an input of the kernel .GM tensor 'x'",
    "undefined_ub": "increment: reads undefined memory at UB byte 252 .VECIN",
    "undefined_scalar": "LocalTensor::GetValue: reads undefined memory at UB byte 32",
    "undefined_new_tensor": "increment: reads undefined memory .*buffer 0 of TQue<VECIN>",
    "undefined_gm": "copy: reads undefined memory: .*byte 252 of 'workspace'",
    "vector_core_on_l1": "AIV 0: copy: wrong core: L1 belongs to the cube cores",
    "vector_core_on_l0c": "AIV 0: TPipe::InitBuffer: wrong core: L0C belongs to the cube cores",
    "cube_core_on_ub": "AIC 0: copy: wrong core: UB belongs to the vector cores",
    "cube_core_buffer_on_ub": "AIC 0: TPipe::InitBuffer: wrong core: UB belongs to the vector cores",
    "cube_core_on_the_vector_pipe": "AIC 0: fill: a cube core has no pipe V",
    "event_mte2_v": "AIV 0: increment: missing event MTE2_V: the read .* copy at .*cases.cpp:[0-9]+ .VECIN",
    "event_v_mte3": "copy: missing event V_MTE3: the read is not ordered after the write by fill",
    "event_v_s": "GetValue: missing event V_S: the read",
    "event_s_v": "increment: missing event S_V: the read .* write by LocalTensor::SetValue",
    "event_mte2_mte1": "missing event MTE2_MTE1: the read",
    "event_mte1_m": "multiply: missing event MTE1_M: the read .*B2 tensor",
    "event_m_fix": "take: missing event M_FIX: the read",
    "event_mte3_mte2_through_gm": "missing event MTE3_MTE2: the read .*GM tensor 'workspace'",
    "event_v_mte2": "copy: missing event V_MTE2: the write is not ordered after the read by increment",
    "event_mte3_v": "fill: missing event MTE3_V: the write is not ordered after the read by copy",
    "event_mte1_mte2": "missing event MTE1_MTE2: the write is not ordered after the read",
    "event_m_mte1": "missing event M_MTE1: the write is not ordered after the read by multiply",
    "event_fix_m": "multiply: missing event FIX_M: the write is not ordered after the read by take",
    "event_set_too_early": "missing event MTE2_V: the read",
    "event_for_another_pipe": "missing event MTE2_MTE3: the read",
    "barrier_v": "missing PipeBarrier<PIPE_V>: the read is not ordered after the write by fill",
    "barrier_v_overwrite": "missing PipeBarrier<PIPE_V>: the write .* after the read by increment",
    "barrier_v_overwrite_in_place": "missing PipeBarrier<PIPE_V>: the write .* after the read by increment",
    "barrier_mte2": "missing PipeBarrier<PIPE_MTE2>: the write is not ordered after the write .*VECIN",
    "barrier_mte3": "missing PipeBarrier<PIPE_MTE3>: the write is not ordered after the write .*'y'",
    "barrier_s": "PipeBarrier<PIPE_S>: not available",
    "flag_set_twice": r"SetFlag<MTE2_V>\(0\): set twice without a WaitFlag",
    "flag_wait_without_set": r"WaitFlag<MTE2_V>\(1\): wait without a SetFlag",
    "flag_of_another_event": r"WaitFlag<MTE2_V>\(1\): wait without a SetFlag",
    "flag_id_out_of_range": "event id 8 is not in 0..7",
    "flag_id_reserved": "event id 6 is reserved",
    "flag_left_set": "end of the kernel: event MTE2_V 2 is left set",
    "flag_of_a_missing_pipe": "AIC 0 has no pipe V",
    "flag_ids_used_up": "event MTE2_V: all 8 event ids are in use",
    "flag_id_released_twice": "ReleaseEventID of id 0, which is not allocated",
    "unit_flag_result_not_taken": "multiply: unit flag is 1: .*L0C byte 0, block 0",
    "unit_flag_result_not_released": "take: unit flag is 0",
    "unit_flag_on_one_side": "take: missing event M_FIX",
    "unit_flag_left_set": "end of the kernel: unit flag of L0C block 0 is left set",
    "overlap_inside_a_repeat": "operand overlap: repeat 0 source and destination overlap in part",
    "overlap_of_a_later_source": "operand overlap: repeat 1 reads what an earlier repeat wrote",
    "overlap_with_repeat_stride_0": "operand overlap: repeat 1 reads what an earlier repeat wrote",
    "overlap_of_another_size": "operand overlap: repeat 0 source and destination overlap in part",
    "queue_alloc_beyond_buffers": "TQue::AllocTensor: queue protocol: no free buffer: all 2 are in use",
    "queue_eight_tensors_of_a_position": "TQue::AllocTensor: queue protocol: more than 8 tensors",
    "queue_without_memory": "queue protocol: InitBuffer was not called",
    "queue_enque_twice": "TQue::EnQue: queue protocol: the tensor is in the queue already",
    "queue_enque_after_free": "TQue::EnQue: queue protocol: the tensor is not allocated",
    "queue_enque_foreign": "TQue::EnQue: queue protocol: the tensor belongs to another owner",
    "queue_deque_empty": "TQue::DeQue: queue protocol: the queue is empty",
    "queue_free_foreign": "TQue::FreeTensor: queue protocol: the tensor belongs to another owner",
    "queue_free_queued": "TQue::FreeTensor: queue protocol: the tensor is still in the queue",
    "queue_free_twice": "TQue::FreeTensor: queue protocol: the tensor is free already",
    "queue_use_after_free": "increment: the tensor was freed .buffer 0 of TQue<VECIN>",
    "queue_depth_exceeded": "TQue::EnQue: queue protocol: depth 1 exceeded",
    "queue_never_freed": "end of the kernel: queue protocol: buffer 0 of TQue<VECIN> .* never freed",
    "queue_never_dequeued": "end of the kernel: queue protocol: .* was enqueued and never dequeued",
    "queue_carries_events": "copy: missing event V_MTE3: .*TQue<VECOUT>",
    "queue_bound_to_two_positions": "increment: missing event MTE2_V",
    "queue_two_pipes": "TPipe: the core has another TPipe, not yet destroyed",
    "queue_events_after_reset": "UB over capacity: 98304 bytes in use, 98304 more asked for",
    "queue_used_after_reset": "queue protocol: InitBuffer was not called",
    "queue_event_of_scratch": "increment: missing event MTE2_V: .*TBuf<VECCALC>",
    "flag_between_cores": r"AIV 0: copy: race between cores: .* write by take at .* of AIC 0 \(pipe FIX\)",
    "flag_from_the_only_vector_core": r"race between cores: the read .* by copy .* of AIV [01] \(pipe MTE3\)",
    "flag_between_all_cube_cores": r"race between cores: the read .* by take .* of AIC [0-2] \(pipe FIX\)",
    "flag_back_between_cores": "copy: race between cores: .* 'workspace'",
    "flag_between_vector_cores": "copy: reads undefined memory: nothing has written byte 256 of 'workspace'",
    "flag_between_all_cores": r"copy: race between cores: the read .* by copy .* of AIV 0 \(pipe MTE3\)",
    "sync_all_missing": "copy: reads undefined memory: nothing has written byte 256 of 'workspace'",
    "sync_all_cube_and_vector": "AIC 0: copy: reads undefined memory: nothing has written byte 0 of 'work",
    "race_of_writes": "race between cores: the write is not ordered after the write .* of AIV 0 .*'y'",
    "race_of_an_element": "race between cores: the write is not ordered after the write .*'y' from byte 240",
    "race_of_read_and_write": "race between cores: the (read|write) is not ordered after the (write|read)",
    "race_of_atomics": "race between cores: the write is not ordered after the write by add",
    "race_of_atomic_and_read": "race between cores: the (read|write) is not ordered after the (write|read)",
    "cross_core_under_aiv_only": "CrossCoreSetFlag<0, PIPE_MTE3>.*AIV_ONLY has no synchronisation",
    "cross_core_wait_under_aic_only": "CrossCoreWaitFlag.*KERNEL_TYPE_AIC_ONLY has no synchronisation",
    "cross_core_mode_2_without_cubes": "mode 2 needs a kernel type with cube and vector cores",
    "cross_core_pipe_s": "CrossCoreSetFlag<0, PIPE_S>.*not available for PIPE_S",
    "cross_core_id_reserved": "flag id 12 is reserved: SyncAll uses 11-14",
    "cross_core_id_out_of_range": "flag id 16 is not in 0..15",
    "cross_core_flag_left_set": "AIV 1: end of the kernel: cross-core flag 3 is left at 1",
    "cross_core_flag_of_one_sub_block": "end of the kernel: cross-core flag 3 was set, but not by",
    "cross_core_overflow_mode_2": "AIC 0: .*counter overflow: flag 3 of AIV 0 is at 15 already",
    "cross_core_overflow_mode_1": "counter overflow: AIV 0 has set flag 3 16 times",
    "cross_core_overflow_mode_0": "counter overflow: AIV 0 has set flag 3 16 times",
    "deadlock_of_a_flag": "deadlock, .*AIV 0 waits for cross-core flag 3 .*AIV 1 waits for cross-core flag 3",
    "deadlock_of_each_other": "deadlock, .*AIC 0 waits for .* flag 4 .*AIV 0 waits for .* flag 3",
    "deadlock_of_sync_all": "deadlock, .*AIV 3 waits for the other cores at SyncAll",
    "deadlock_of_a_poll": "AIV 1: wait: the limit of time is over",
    "sync_all_under_aiv_only": "SyncAll<true>: kernel type KERNEL_TYPE_AIV_ONLY has no synchronisation",
    "sync_all_false_without_cubes": "SyncAll<false> in a kernel without cube cores hangs",
    "sync_all_true_on_a_cube": "AIC 0: SyncAll<true>: called by a cube core",
    "sync_all_beyond_the_chip": r"5 blocks of .*MIX_AIV_1_0 are more than the chip has cores \(2 AIC\)",
    "cache_not_cleaned": "end of the kernel: scalar writes were never cleaned .*'y'",
    "cache_cleaned_from_behind": "end of the kernel: scalar writes were never cleaned .*'y'",
    "cache_read_by_a_copy": "copy: scalar write still in the data cache: .*'y'",
    "cache_stale": "AIV 1: GlobalTensor::GetValue: stale scalar cache: 'workspace' changed",
    "cache_line_shared": "DataCacheCleanAndInvalid: race between cores: the write .*'y'",
    "tensor_without_memory": "fill: the tensor was never given memory",
    "buffer_of_global_memory": "TPipe::InitBuffer: TBuf<GM> of .* has no on-chip memory",
    "scalar_misaligned_in_gm": "GetValue: misaligned: byte 2 of 'x' must be a multiple of 4 bytes",
    "scalar_store_out_of_bounds": "SetValue: out of bounds: byte 16384 of GM tensor 'y'",
    "scalar_store_to_an_input": "SetValue: writes to an input of the kernel, 'x'",
    "cache_line_written_back_over_newer_data": "writes a stale cache line back over newer data",
    "cross_core_mode_out_of_range": "mode 3 is not in 0..2",
    "cross_core_mode_1_on_a_cube": "mode 1 is for the vector cores of a group",
    "copy_to_l0": "DataCopy: there is no path from GM to L0A",
    "copy_from_l0": "DataCopy: there is no path from L0A to GM",
    "copy_pad_of_64_bits": "DataCopyPad: 64-bit elements can be padded with 0 only",
    "copy_pad_of_a_long_burst": "DataCopyPad: blockLen is 2097152, at most 2097151",
    "copy_in_fractals_to_ub": "DataCopy .Nd2Nz.: the destination must lie in L1, not UB",
    "load_data_to_l1": "LoadData: the destination must lie in L0A or L0B, not L1",
    "load_data_address_mode": "LoadData: addrMode 1 is not modelled",
    "load_data_from_l0": "LoadData: the source must lie in L1, not L0A",
    "load_data_of_4_bits_from_gm": "LoadData: has no form for int4b_t from GM",
    "load_data_with_transpose_from_l0": "LoadDataWithTranspose: the source must lie in L1, not L0A",
    "mmad_operand_in_another_memory": "Mmad: operands lie in L0B, L0B and L0C instead of L0A, L0B and L0C",
    "mmad_too_large": "Mmad: m 4096, n 16, k 32: at most 4095",
    "mmad_from_the_table_without_a_tensor": "Mmad: cmatrixSource without a bias tensor is not modelled",
    "mmad_bias_outside_the_table": "Mmad: the bias must lie in BT, not L1",
    "fixpipe_from_l1": "Fixpipe: the source must lie in L0C, not L1",
    "fixpipe_without_a_stride": "Fixpipe: dstStride is 0",
    "fixpipe_of_several_matrices": "Fixpipe: ndNum above 1 is not modelled",
    "fixpipe_channel_split": "Fixpipe: isChannelSplit is not modelled",
    "fixpipe_table_without_a_mode": "Fixpipe: DEQF16 takes no table",
    "fixpipe_table_outside_l1": "Fixpipe: the table must lie in L1, not FB",
    "vector_negative_count": "Adds: count is -1",
    "vector_repeats": "ReduceRepeat: 256 repeats, at most 255 are possible",
    "copy_repeat_stride": "Copy: repeat strides are at most 4095 blocks",
    "select_mode_of_a_scalar": "Select: this mode takes a scalar",
    "select_mode_of_a_tensor": "Select: this mode takes a tensor",
    "gather_from_a_broken_base": "Gather: srcBaseAddr is 2, no multiple of float's size",
    "gather_mask_pattern": "GatherMask: pattern 8 is not in 1..7",
    "gather_mask_repeats": "GatherMask: 256 repeats, at most 255 are possible",
    "gather_mask_of_nothing": "GatherMask: mask is 0 in counter mode",
    "reduce_stride": "ReduceRepeat: stride 65536 is not in 0..65535",
    "reduce_of_all_with_a_negative_stride": "ReduceSum: 2 repeats with stride -8",
    "reduce_of_all_in_counter_mode": "ReduceSum: counter mode is not modelled here",
    "reduce_of_all_with_an_index": "ReduceMax: an index needs all lanes and a stride of 8 blocks",
    "reduce_of_all_with_an_index_of_half": "ReduceMax: index 65536 does not fit in half",
}
ORDERS = {"order_of_sets": "AIV [01]: copy: race between cores: the read .* write by take"}


def run_case(binary: Path, *arguments: str) -> tuple[bool, list[str]]:
    done = subprocess.run([str(binary), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), f"died with {done.returncode}: {done.stderr}"
    return done.returncode == 0, done.stdout.splitlines()


def test_every_case_has_a_rule(case_runner: Path) -> None:
    assert sorted(run_case(case_runner)[1]) == sorted([*RULES, *ORDERS])


@pytest.mark.parametrize("name", RULES)
def test_the_rule_is_enforced(case_runner: Path, name: str) -> None:
    passed, lines = run_case(case_runner, name, "right")
    assert passed, lines
    passed, (message, core, file, line) = run_case(case_runner, name, "wrong")
    assert not passed
    assert re.search(RULES[name], message), message
    assert core in message
    if name != "unit_flag_left_set":  # a flag of the hardware that no call stands for
        assert file.endswith(("_cases.cpp", "harness.h"))
        assert f"{file}:{line}: " in message


@pytest.mark.parametrize("name", sorted({*RULES, *ORDERS} - {"deadlock_of_a_poll"}))
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_right_kernels_pass_in_every_order_of_cores(case_runner: Path, name: str, seed: str) -> None:
    passed, lines = run_case(case_runner, name, "right", seed)
    assert passed, lines


@pytest.mark.parametrize(
    "name",
    [name for name, text in RULES.items() if "race" in text or "undefined memory: nothing" in text],
)
@pytest.mark.parametrize("seed", ["1", "2", "3", "4"])
def test_races_are_found_in_every_order_of_cores(case_runner: Path, name: str, seed: str) -> None:
    passed, (message, *_) = run_case(case_runner, name, "wrong", seed)
    assert not passed
    assert re.search("race between cores|reads undefined memory: nothing", message), message


@pytest.mark.parametrize("name", ORDERS)
def test_sets_of_two_pipes_arrive_in_either_order(case_runner: Path, name: str) -> None:
    results = [run_case(case_runner, name, "wrong", str(seed)) for seed in range(1, 9)]
    failures = [lines[0] for passed, lines in results if not passed]
    assert 0 < len(failures) < len(results)
    assert all(re.search(ORDERS[name], message) for message in failures), failures

// Arguments that an instruction refuses: memories it does not connect, fields out of range, forms that the
// chip does not have or that are not modelled.
#include "harness.h"

namespace cases {

template <typename T>
LocalTensor<T> ub(uint32_t address, uint32_t count = 256) {
    return LocalTensor<T>(TPosition::VECCALC, address, count);
}
template <typename T>
GlobalTensor<T> as(const GlobalTensor<float>& tensor, uint32_t bytes = 0) {
    GlobalTensor<T> other;
    const auto* address = reinterpret_cast<const char*>(tensor.GetPhyAddr(0)) + bytes;
    other.SetGlobalBuffer(reinterpret_cast<T*>(const_cast<char*>(address)), 1024);
    return other;
}
// 4 KiB of defined memory.
template <typename T>
LocalTensor<T> filled(uint32_t address, T value = T(1), uint32_t count = 4096 / sizeof(T)) {
    const LocalTensor<T> tensor = ub<T>(address, count);
    Duplicate(tensor, value, static_cast<int32_t>(count));
    PipeBarrier<PIPE_V>();
    return tensor;
}

CASE(tensor_without_memory, AivOnly, 1) { fill(wrong ? LocalTensor<float>() : ub<float>(0), 8); }
CASE(buffer_of_global_memory, AivOnly, 1) {
    TPipe pipe;
    TBuf<TPosition::VECCALC> on_chip;
    TBuf<TPosition::GM> global;
    wrong ? pipe.InitBuffer(global, 64) : pipe.InitBuffer(on_chip, 64);
}

// ---- scalar accesses

CASE(scalar_misaligned_in_gm, AivOnly, 1) { as<int32_t>(gm.input, wrong ? 2 : 4).GetValue(0); }
CASE(scalar_store_out_of_bounds, AivOnly, 1) {
    gm.output.SetValue(wrong ? 4096 : 4095, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::ENTIRE_DATA_CACHE, DcciDst::CACHELINE_OUT>(gm.output);
}
CASE(scalar_store_to_an_input, AivOnly, 1) {
    const auto& target = wrong ? gm.input : gm.output;
    target.SetValue(0, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::ENTIRE_DATA_CACHE, DcciDst::CACHELINE_OUT>(target);
}
CASE(cache_line_written_back_over_newer_data, AivOnly, 1) {
    fill(ub<float>(0), 8);
    order<HardEvent::V_MTE3>();
    gm.output.SetValue(0, 1.0f);
    store(gm.output[wrong ? 8 : 16], ub<float>(0), 8);
    order<HardEvent::MTE3_S>();
    DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE, DcciDst::CACHELINE_OUT>(gm.output);
}

// ---- flags between cores

CASE(cross_core_mode_out_of_range, MixAiv10, 1) {
    if (wrong) CrossCoreSetFlag<3, PIPE_MTE3>(8);
}
CASE(cross_core_mode_1_on_a_cube, MixAic12, 1) {
    if ((ASCEND_IS_AIC) && wrong) CrossCoreSetFlag<1, PIPE_FIX>(8);
}

// ---- copies

CASE(copy_to_l0, AicOnly, 1) { DataCopy(local(wrong ? TPosition::A2 : TPosition::A1, 0), gm.input, 128); }
CASE(copy_from_l0, AicOnly, 1) {
    load_operands(gm);
    order<HardEvent::MTE1_MTE3>();
    order<HardEvent::MTE2_MTE3>();
    DataCopy(gm.output, local(wrong ? TPosition::A2 : TPosition::A1, 0), 128);
}
CASE(copy_pad_of_64_bits, AivOnly, 1) {
    const DataCopyPadExtParams<int64_t> pad(true, 0, 1, wrong ? 1 : 0);
    DataCopyPad(ub<int64_t>(0), as<int64_t>(gm.input), DataCopyExtParams(1, 24, 0, 0, 0), pad);
}
CASE(copy_pad_of_a_long_burst, AivOnly, 1) {
    const DataCopyExtParams copy(wrong ? 1 : 0, wrong ? 2097152 : 2097120, 0, 0, 0);
    DataCopyPad(ub<float>(0), gm.input, copy, DataCopyPadExtParams<float>());
}
CASE(copy_in_fractals_to_ub, MixAic12, 1) {
    if ((ASCEND_IS_AIV) == wrong) {
        const auto target = local(wrong ? TPosition::VECIN : TPosition::A1, 0, 1024);
        DataCopy(target, gm.input, Nd2NzParams(1, 16, 8, 0, 8, 16, 1, 0));
    }
}

// ---- matrix unit

// Fractals of int8 in both operand memories.
void load_int8(const Buffers& gm) {
    const LocalTensor<int8_t> l1(TPosition::A1, 0, 2048), a(TPosition::A2, 0, 512), b(TPosition::B2, 0, 512);
    DataCopy(l1, as<int8_t>(gm.input), 1024);
    order<HardEvent::MTE2_MTE1>();
    LoadData(a, l1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
    LoadData(b, l1, LoadData2DParams(0, 1, 1, 0, 0, false, 0));
    order<HardEvent::MTE1_M>();
}
const LocalTensor<int8_t> kA(TPosition::A2, 0, 512), kB(TPosition::B2, 0, 512);
const LocalTensor<int32_t> kC(TPosition::CO1, 0, 256);

void load_fractal(const Buffers& gm, TPosition from, TPosition to, const LoadData2DParams& load) {
    DataCopy(LocalTensor<int8_t>(TPosition::A1, 0, 1024), as<int8_t>(gm.input), 1024);
    order<HardEvent::MTE2_MTE1>();
    LoadData(LocalTensor<int8_t>(to, 0, 512), LocalTensor<int8_t>(from, 0, 512), load);
}
CASE(load_data_to_l1, AicOnly, 1) {
    load_fractal(gm, TPosition::A1, wrong ? TPosition::B1 : TPosition::B2, {0, 1, 1, 0, 0, false, 0});
}
CASE(load_data_address_mode, AicOnly, 1) {
    const uint8_t mode = wrong;
    load_fractal(gm, TPosition::A1, TPosition::B2, {0, 1, 1, 0, 0, false, mode});
}
CASE(load_data_from_l0, AicOnly, 1) {
    load_fractal(gm, wrong ? TPosition::A2 : TPosition::A1, TPosition::B2, {0, 1, 1, 0, 0, false, 0});
}
CASE(load_data_of_4_bits_from_gm, AicOnly, 1) {
    const LoadData2DParams load(0, 1, 1, 0, 0, false, 0);
    if (wrong)
        LoadData(LocalTensor<int4b_t>(TPosition::B2, 0, 1024), as<int4b_t>(gm.input), load);
    else
        LoadData(LocalTensor<int8_t>(TPosition::B2, 0, 512), as<int8_t>(gm.input), load);
}
CASE(load_data_with_transpose_from_l0, AicOnly, 1) {
    load_int8(gm);
    const LocalTensor<int8_t> l1(TPosition::A1, 0, 2048), l0a(TPosition::A2, 0, 1024);
    const LocalTensor<int8_t> target(TPosition::B2, 1024, 1024);
    LoadDataWithTranspose(target, wrong ? l0a : l1, LoadData2dTransposeParams(0, 1, 1, 1, 0));
}

CASE(mmad_operand_in_another_memory, AicOnly, 1) {
    load_int8(gm);
    Mmad(kC, wrong ? kB : kA, kB, MmadParams(16, 16, 32, 0, false, true));
}
CASE(mmad_too_large, AicOnly, 1) {
    load_int8(gm);
    Mmad(kC, kA, kB, MmadParams(wrong ? 4096 : 16, 16, 32, 0, false, true));
}
CASE(mmad_from_the_table_without_a_tensor, AicOnly, 1) {
    load_int8(gm);
    Mmad(kC, kA, kB, MmadParams(16, 16, 32, 0, wrong, !wrong));
}
CASE(mmad_bias_outside_the_table, AicOnly, 1) {
    load_int8(gm);
    const LocalTensor<int32_t> l1(TPosition::C1, 4096, 16), table(TPosition::C2, 0, 16);
    DataCopy(l1, as<int32_t>(gm.input), 16);
    order<HardEvent::MTE2_MTE1>();
    DataCopy(table, l1, DataCopyParams(1, 1, 0, 0));
    order<HardEvent::MTE1_M>();
    Mmad(kC, kA, kB, wrong ? l1 : table, MmadParams(16, 16, 32, 0, true, false));
}

// A product of int8 for Fixpipe.
FixpipeParamsV220 result_of_a_product(const Buffers& gm) {
    load_int8(gm);
    Mmad(kC, kA, kB, MmadParams(16, 16, 32, 0, false, true));
    order<HardEvent::M_FIX>();
    return {16, 16, 16, 16, false};
}
CASE(fixpipe_from_l1, AicOnly, 1) {
    const FixpipeParamsV220 move = result_of_a_product(gm);
    const LocalTensor<int32_t> l1(TPosition::A1, 0, 256);
    Fixpipe(as<int32_t>(gm.output), wrong ? l1 : kC, move);
}
CASE(fixpipe_without_a_stride, AicOnly, 1) {
    FixpipeParamsV220 move = result_of_a_product(gm);
    if (wrong) move.dstStride = 0;
    Fixpipe(as<int32_t>(gm.output), kC, move);
}
CASE(fixpipe_of_several_matrices, AicOnly, 1) {
    FixpipeParamsV220 move = result_of_a_product(gm);
    if (wrong) move.ndNum = 2;
    Fixpipe(as<int32_t>(gm.output), kC, move);
}
CASE(fixpipe_channel_split, AicOnly, 1) {
    FixpipeParamsV220 move = result_of_a_product(gm);
    move.isChannelSplit = wrong;
    Fixpipe(as<int32_t>(gm.output), kC, move);
}
// Quantisation words are in `x`, whose first ones are the bits of small floats.
CASE(fixpipe_table_without_a_mode, AicOnly, 1) {
    FixpipeParamsV220 move = result_of_a_product(gm);
    const LocalTensor<uint64_t> words(TPosition::C1, 4096, 16);
    DataCopy(words, as<uint64_t>(gm.input, 64), 16);
    order<HardEvent::MTE2_FIX>();
    move.quantPre = wrong ? DEQF16 : VDEQF16;
    move.deqScalar = 0x3f800000;
    Fixpipe(as<half>(gm.output), kC, words, move);
}
CASE(fixpipe_table_outside_l1, AicOnly, 1) {
    FixpipeParamsV220 move = result_of_a_product(gm);
    const LocalTensor<uint64_t> words(TPosition::C1, 4096, 16), table(TPosition::C2PIPE2GM, 0, 16);
    DataCopy(words, as<uint64_t>(gm.input, 64), 16);
    order<HardEvent::MTE2_FIX>();
    DataCopy(table, words, DataCopyParams(1, 1, 0, 0));
    PipeBarrier<PIPE_FIX>();
    move.quantPre = VDEQF16;
    Fixpipe(as<half>(gm.output), kC, wrong ? table : words, move);
}

// ---- vector unit

CASE(vector_negative_count, AivOnly, 1) {
    const auto x = filled<float>(0);
    Adds(ub<float>(8192), x, 1.0f, wrong ? -1 : 8);
}
CASE(vector_repeats, AivOnly, 1) {
    const auto x = filled<float>(0, 1.0f, 256 * 64);
    WholeReduceSum(ub<float>(64 * 1024), x, 64, wrong ? 256 : 255, 1, 1, 8);
}
CASE(copy_repeat_stride, AivOnly, 1) {
    const auto x = filled<float>(0);
    Copy(ub<float>(4096), x, 8, 1, CopyRepeatParams(1, 1, wrong ? 4096 : 4095, 8));
}
CASE(select_mode_of_a_scalar, AivOnly, 1) {
    const auto x = filled<float>(0);
    const auto bits = filled<uint16_t>(4096).ReinterpretCast<uint8_t>();
    const SELMODE mode = wrong ? SELMODE::VSEL_TENSOR_SCALAR_MODE : SELMODE::VSEL_TENSOR_TENSOR_MODE;
    Select(ub<float>(8192), bits, x, x, mode, 64);
}
CASE(select_mode_of_a_tensor, AivOnly, 1) {
    const auto x = filled<float>(0);
    const auto bits = filled<uint16_t>(4096).ReinterpretCast<uint8_t>();
    const SELMODE mode = wrong ? SELMODE::VSEL_TENSOR_TENSOR_MODE : SELMODE::VSEL_TENSOR_SCALAR_MODE;
    Select(ub<float>(8192), bits, x, 0.0f, mode, 64);
}
CASE(gather_from_a_broken_base, AivOnly, 1) {
    const auto x = filled<float>(0);
    const auto offsets = filled<uint32_t>(4096, 4);
    Gather(ub<float>(8192), x, offsets, wrong ? 2 : 4, 64);
}
void pack(uint8_t pattern, bool counts, uint32_t mask, uint16_t repeats) {
    const auto x = filled<float>(0, 1.0f, 8192);
    uint64_t kept = 0;
    GatherMask(ub<float>(64 * 1024, 8192), x, pattern, counts, mask, GatherMaskParams(1, repeats, 0, 0),
               kept);
}
CASE(gather_mask_pattern, AivOnly, 1) { pack(wrong ? 8 : 7, false, 0, 1); }
CASE(gather_mask_repeats, AivOnly, 1) { pack(1, false, 0, wrong ? 256 : 255); }
CASE(gather_mask_of_nothing, AivOnly, 1) { pack(1, true, wrong ? 0 : 8, 1); }

CASE(reduce_stride, AivOnly, 1) {
    const auto x = filled<float>(0);
    WholeReduceSum(ub<float>(8192), x, 64, 1, wrong ? 65536 : 65535, 1, 8);
}
CASE(reduce_of_all_with_a_negative_stride, AivOnly, 1) {
    const auto x = filled<float>(0);
    ReduceSum(ub<float>(8192), x, ub<float>(16384), 64, 2, wrong ? -8 : 8);
}
CASE(reduce_of_all_in_counter_mode, AivOnly, 1) {
    const auto x = filled<float>(0);
    if (wrong) {
        SetMaskCount();
        SetVectorMask<float, MaskMode::COUNTER>(128);
    }
    ReduceSum(ub<float>(8192), x, ub<float>(16384), 64, 2, 8);
}
CASE(reduce_of_all_with_an_index, AivOnly, 1) {
    const auto x = filled<float>(0);
    ReduceMax(ub<float>(8192), x, ub<float>(16384), 64, 2, wrong ? 16 : 8, true);
}
CASE(reduce_of_all_with_an_index_of_half, AivOnly, 1) {
    constexpr uint32_t count = 65536 + 128;
    const auto x = filled<half>(0, static_cast<half>(1.0f), count);
    Duplicate(x[count - 128], static_cast<half>(wrong ? 2.0f : 0.0f), 128);
    PipeBarrier<PIPE_V>();
    ReduceMax(ub<half>(160 * 1024), x, ub<half>(170 * 1024, 4096), static_cast<int32_t>(count), true);
}

}  // namespace cases

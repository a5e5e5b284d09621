// Capacity, alignment, bounds, undefined memory, memory of the other kind of core.
#include "harness.h"

namespace cases {

// InitBuffer: 1 byte more than there is.
template <TPosition position>
void reserve(bool wrong) {
    TPipe pipe;
    TBuf<position> buffer;
    pipe.InitBuffer(buffer, em::traits(em::memory_of(position)).capacity + wrong);
}
CASE(capacity_ub, AivOnly, 1) { reserve<TPosition::VECCALC>(wrong); }
CASE(capacity_l1, AicOnly, 1) { reserve<TPosition::A1>(wrong); }
CASE(capacity_l0a, AicOnly, 1) { reserve<TPosition::A2>(wrong); }
CASE(capacity_l0b, AicOnly, 1) { reserve<TPosition::B2>(wrong); }
CASE(capacity_l0c, AicOnly, 1) { reserve<TPosition::CO1>(wrong); }
CASE(capacity_bt, AicOnly, 1) { reserve<TPosition::C2>(wrong); }
CASE(capacity_fb, AicOnly, 1) { reserve<TPosition::C2PIPE2GM>(wrong); }

CASE(capacity_of_all_buffers, AivOnly, 1) {
    TPipe pipe;
    TQue<TPosition::VECIN, 1> queue;
    TBuf<> buffer;
    pipe.InitBuffer(queue, 2, 64 * 1024);
    pipe.InitBuffer(buffer, wrong ? 64 * 1024 : 32 * 1024);
}

// The start of an operand, off by less than the memory's rule.
CASE(alignment_ub, AivOnly, 1) { fill(local(TPosition::VECIN, wrong ? 16 : 32), 8); }
CASE(alignment_of_a_slice, AivOnly, 1) { fill(local(TPosition::VECIN, 0)[wrong ? 4 : 8], 8); }
CASE(alignment_l1, AicOnly, 1) { load(local(TPosition::A1, wrong ? 16 : 32), gm.input, 8); }
template <TPosition position, pipe_t pipe>
void from_l1(const Buffers& gm, uint32_t address) {
    load(local(TPosition::A1, 0), gm.input, 128);
    order<EventOf(PIPE_MTE2, pipe)>();
    copy<pipe>(local(position, address), local(TPosition::A1, 0), 128);
}
CASE(alignment_l0a, AicOnly, 1) { from_l1<TPosition::A2, PIPE_MTE1>(gm, wrong ? 256 : 512); }
CASE(alignment_l0b, AicOnly, 1) { from_l1<TPosition::B2, PIPE_MTE1>(gm, wrong ? 256 : 512); }
CASE(alignment_bt, AicOnly, 1) { from_l1<TPosition::C2, PIPE_MTE1>(gm, wrong ? 32 : 64); }
CASE(alignment_fb, AicOnly, 1) { from_l1<TPosition::C2PIPE2GM, PIPE_FIX>(gm, wrong ? 64 : 128); }
CASE(alignment_l0c_product, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, wrong ? 512 : 1024), local(TPosition::A2, 0), local(TPosition::B2, 0));
}
CASE(alignment_l0c_result, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0, 1024), local(TPosition::A2, 0), local(TPosition::B2, 0));
    multiply(local(TPosition::CO1, 1024, 1024), local(TPosition::A2, 0), local(TPosition::B2, 0));
    order<HardEvent::M_FIX>();
    take(gm.output, local(TPosition::CO1, wrong ? 32 : 64));
}

CASE(bounds_of_a_tensor, AivOnly, 1) { fill(local(TPosition::VECIN, 0, 64), wrong ? 72 : 64); }
CASE(bounds_of_a_slice, AivOnly, 1) { fill(local(TPosition::VECIN, 0, 64)[32], wrong ? 40 : 32); }
CASE(bounds_of_a_memory, AivOnly, 1) {
    const uint32_t end = em::traits(em::Memory::UB).capacity;
    fill(local(TPosition::VECIN, end - 256, 128), wrong ? 72 : 64);
}
CASE(bounds_of_a_buffer, AivOnly, 1) {
    TPipe pipe;
    TBuf<> buffer;
    TBuf<> neighbour;
    pipe.InitBuffer(buffer, 256);
    pipe.InitBuffer(neighbour, 256);
    LocalTensor<float> tensor = buffer.Get<float>();
    tensor.SetSize(128);
    fill(tensor, wrong ? 72 : 64);
}
CASE(bounds_of_scratch, AivOnly, 1) {
    TPipe pipe;
    TBuf<> buffer;
    pipe.InitBuffer(buffer, 256);
    buffer.Get<float>(wrong ? 72 : 64);
}
CASE(bounds_of_a_buffer_in_gm, AivOnly, 1) {
    fill(local(TPosition::VECOUT, 0), 64);
    order<HardEvent::V_MTE3>();
    store(gm.scratch[4096 - 64 + (wrong ? 8 : 0)], local(TPosition::VECOUT, 0), 64);
}
CASE(bounds_of_a_tensor_in_gm, AivOnly, 1) {
    GlobalTensor<float> row;
    row.SetGlobalBuffer(const_cast<float*>(gm.input.GetPhyAddr(64)), 64);
    load(local(TPosition::VECIN, 0), row, wrong ? 72 : 64);
}
CASE(gm_not_registered, AivOnly, 1) {
    static float elsewhere[64];
    GlobalTensor<float> tensor;
    tensor.SetGlobalBuffer(elsewhere, 64);
    load(local(TPosition::VECIN, 0), wrong ? tensor : gm.input, 64);
}
CASE(write_to_an_input, AivOnly, 1) {
    fill(local(TPosition::VECOUT, 0), 64);
    order<HardEvent::V_MTE3>();
    store(wrong ? gm.input : gm.output, local(TPosition::VECOUT, 0), 64);
}

CASE(undefined_ub, AivOnly, 1) {
    fill(local(TPosition::VECIN, 0), wrong ? 63 : 64);
    PipeBarrier<PIPE_V>();
    increment(local(TPosition::VECOUT, 1024), local(TPosition::VECIN, 0), 64);
}
CASE(undefined_scalar, AivOnly, 1) {
    fill(local(TPosition::VECIN, 0), 8);
    order<HardEvent::V_S>();
    local(TPosition::VECIN, 0).ReinterpretCast<int32_t>().GetValue(wrong ? 8 : 7);
}
CASE(undefined_new_tensor, AivOnly, 1) {
    TPipe pipe;
    TQue<TPosition::VECIN, 1> queue;
    pipe.InitBuffer(queue, 1, 256);
    for (int round = 0; round < 2; ++round) {
        LocalTensor<float> tensor = queue.AllocTensor<float>();
        if (round == 0 || !wrong) load(tensor, gm.input, 64);
        queue.EnQue(tensor);
        tensor = queue.DeQue<float>();
        increment(tensor, tensor, 64);
        queue.FreeTensor(tensor);
    }
}
CASE(undefined_gm, AivOnly, 1) {
    fill(local(TPosition::VECOUT, 0), 64);
    order<HardEvent::V_MTE3>();
    store(gm.scratch, local(TPosition::VECOUT, 0), wrong ? 63 : 64);
    order<HardEvent::MTE3_MTE2>();
    load(local(TPosition::VECIN, 1024), gm.scratch, 64);
}

// Each kind of core has its own memories.
CASE(vector_core_on_l1, MixAic12, 1) {
    if ((ASCEND_IS_AIV) == wrong) load(local(TPosition::A1, 0), gm.input, 64);
}
CASE(cube_core_on_ub, MixAic12, 1) {
    if ((ASCEND_IS_AIC) == wrong) load(local(TPosition::VECIN, 0), gm.input, 64);
}
CASE(cube_core_buffer_on_ub, MixAic12, 1) {
    if ((ASCEND_IS_AIC) == wrong) {
        TPipe pipe;
        TBuf<> buffer;
        pipe.InitBuffer(buffer, 256);
    }
}
CASE(vector_core_on_l0c, MixAic12, 1) {
    TPipe pipe;
    TBuf<TPosition::CO1> buffer;
    if ((ASCEND_IS_AIV) == wrong) pipe.InitBuffer(buffer, 1024);
}
CASE(cube_core_on_the_vector_pipe, MixAic12, 1) {
    if ((ASCEND_IS_AIC) == wrong) fill(local(TPosition::VECIN, 0), 64);
}

}  // namespace cases

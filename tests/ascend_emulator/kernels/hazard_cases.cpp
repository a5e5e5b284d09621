// Order between and inside the pipes of a core; event flags; unit flags; operands that overlap.
#include "harness.h"

namespace cases {

const auto kIn = local(TPosition::VECIN, 0);
const auto kOut = local(TPosition::VECOUT, 4096);

// Reads of what another pipe wrote.
CASE(event_mte2_v, AivOnly, 1) {
    load(kIn, gm.input, 64);
    if (!wrong) order<HardEvent::MTE2_V>();
    increment(kOut, kIn, 64);
}
CASE(event_v_mte3, AivOnly, 1) {
    fill(kOut, 64);
    if (!wrong) order<HardEvent::V_MTE3>();
    store(gm.output, kOut, 64);
}
CASE(event_v_s, AivOnly, 1) {
    fill(kOut, 64);
    if (!wrong) order<HardEvent::V_S>();
    kOut.GetValue(3);
}
CASE(event_s_v, AivOnly, 1) {
    for (int i = 0; i < 8; ++i) kIn.SetValue(i, 1.0f);
    if (!wrong) order<HardEvent::S_V>();
    increment(kOut, kIn, 8);
}
CASE(event_mte2_mte1, AicOnly, 1) {
    load(local(TPosition::A1, 0), gm.input, 256);
    if (!wrong) order<HardEvent::MTE2_MTE1>();
    copy<PIPE_MTE1>(local(TPosition::A2, 0), local(TPosition::A1, 0), 128);
}
CASE(event_mte1_m, AicOnly, 1) {
    load(local(TPosition::A1, 0), gm.input, 256);
    order<HardEvent::MTE2_MTE1>();
    copy<PIPE_MTE1>(local(TPosition::A2, 0), local(TPosition::A1, 0), 128);
    if (!wrong) copy<PIPE_MTE1>(local(TPosition::B2, 0), local(TPosition::A1, 0), 128);
    order<HardEvent::MTE1_M>();
    if (wrong) copy<PIPE_MTE1>(local(TPosition::B2, 0), local(TPosition::A1, 0), 128);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
}
CASE(event_m_fix, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
    if (!wrong) order<HardEvent::M_FIX>();
    take(gm.output, local(TPosition::CO1, 0));
}
CASE(event_mte3_mte2_through_gm, AivOnly, 1) {
    fill(kOut, 64);
    order<HardEvent::V_MTE3>();
    store(gm.scratch, kOut, 64);
    if (!wrong) order<HardEvent::MTE3_MTE2>();
    load(kIn, gm.scratch, 64);
}

// Writes over what another pipe still reads or writes.
CASE(event_v_mte2, AivOnly, 1) {
    load(kIn, gm.input, 64);
    order<HardEvent::MTE2_V>();
    increment(kOut, kIn, 64);
    if (!wrong) order<HardEvent::V_MTE2>();
    load(kIn, gm.input[64], 64);
}
CASE(event_mte3_v, AivOnly, 1) {
    fill(kOut, 64);
    order<HardEvent::V_MTE3>();
    store(gm.output, kOut, 64);
    if (!wrong) order<HardEvent::MTE3_V>();
    PipeBarrier<PIPE_V>();
    fill(kOut, 64);
}
CASE(event_mte1_mte2, AicOnly, 1) {
    load_operands(gm);
    if (!wrong) order<HardEvent::MTE1_MTE2>();
    load(local(TPosition::A1, 0), gm.input, 256);
}
CASE(event_m_mte1, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
    if (!wrong) order<HardEvent::M_MTE1>();
    copy<PIPE_MTE1>(local(TPosition::A2, 0), local(TPosition::A1, 0), 128);
}
CASE(event_fix_m, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
    order<HardEvent::M_FIX>();
    take(gm.output, local(TPosition::CO1, 0));
    if (!wrong) order<HardEvent::FIX_M>();
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
}
// The event was set before the instruction that it is to cover.
CASE(event_set_too_early, AivOnly, 1) {
    if (wrong) SetFlag<HardEvent::MTE2_V>(0);
    load(kIn, gm.input, 64);
    if (!wrong) SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    increment(kOut, kIn, 64);
}
// A wait of the vector pipe says nothing about MTE3; one of the scalar unit holds back all pipes.
CASE(event_for_another_pipe, AivOnly, 1) {
    load(kOut, gm.input, 64);
    if (wrong)
        order<HardEvent::MTE2_V>();
    else
        order<HardEvent::MTE2_S>();
    store(gm.output, kOut, 64);
}

// Dependent instructions of one pipe.
CASE(barrier_v, AivOnly, 1) {
    fill(kIn, 64);
    if (!wrong) PipeBarrier<PIPE_V>();
    increment(kOut, kIn, 64);
}
CASE(barrier_v_overwrite, AivOnly, 1) {
    fill(kIn, 64);
    PipeBarrier<PIPE_V>();
    increment(kOut, kIn, 64);
    if (!wrong) PipeBarrier<PIPE_ALL>();
    fill(kIn, 64);
}
CASE(barrier_v_overwrite_in_place, AivOnly, 1) {
    fill(kIn, 64);
    PipeBarrier<PIPE_V>();
    increment(kOut, kIn, 64);
    if (!wrong) PipeBarrier<PIPE_V>();
    increment(kIn, kIn, 64);
}
CASE(barrier_mte2, AivOnly, 1) {
    load(kIn, gm.input, 64);
    if (!wrong) PipeBarrier<PIPE_MTE2>();
    load(kIn[8], gm.input, 64);
}
CASE(barrier_mte3, AivOnly, 1) {
    fill(kOut, 128);
    order<HardEvent::V_MTE3>();
    store(gm.output, kOut, 64);
    if (!wrong) PipeBarrier<PIPE_MTE3>();
    store(gm.output[8], kOut[8], 64);
}
CASE(barrier_s, AivOnly, 1) {
    if (wrong)
        PipeBarrier<PIPE_S>();
    else
        PipeBarrier<PIPE_V>();
}

CASE(flag_set_twice, AivOnly, 1) {
    SetFlag<HardEvent::MTE2_V>(0);
    if (!wrong) WaitFlag<HardEvent::MTE2_V>(0);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
}
CASE(flag_wait_without_set, AivOnly, 1) {
    if (!wrong) SetFlag<HardEvent::MTE2_V>(1);
    WaitFlag<HardEvent::MTE2_V>(1);
}
CASE(flag_of_another_event, AivOnly, 1) {
    if (wrong)
        SetFlag<HardEvent::MTE2_MTE3>(1);
    else
        SetFlag<HardEvent::MTE2_V>(1);
    WaitFlag<HardEvent::MTE2_V>(1);
}
CASE(flag_id_out_of_range, AivOnly, 1) { order<HardEvent::MTE2_V>(wrong ? 8 : 5); }
CASE(flag_id_reserved, AivOnly, 1) { order<HardEvent::MTE2_V>(wrong ? 6 : 5); }
CASE(flag_left_set, AivOnly, 1) {
    SetFlag<HardEvent::MTE2_V>(2);
    if (!wrong) WaitFlag<HardEvent::MTE2_V>(2);
}
CASE(flag_of_a_missing_pipe, MixAic12, 1) {
    if ((ASCEND_IS_AIC) == wrong) order<HardEvent::V_MTE3>();
}
CASE(flag_ids_used_up, AivOnly, 1) {
    TPipe pipe;
    for (int i = 0; i < 8 + wrong; ++i) pipe.AllocEventID<HardEvent::MTE2_V>();
}
CASE(flag_id_released_twice, AivOnly, 1) {
    TPipe pipe;
    const int id = pipe.AllocEventID<HardEvent::MTE2_V>();
    pipe.ReleaseEventID<HardEvent::MTE2_V>(id);
    if (wrong) pipe.ReleaseEventID<HardEvent::MTE2_V>(id);
}

// With a unit flag the block's state takes the place of M_FIX and FIX_M.
CASE(unit_flag_result_not_taken, AicOnly, 1) {
    load_operands(gm);
    for (int tile = 0; tile < 2; ++tile) {
        multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0), 3);
        if (!wrong || tile == 1) take(gm.output[tile * 256], local(TPosition::CO1, 0), 3);
    }
}
CASE(unit_flag_result_not_released, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0), 2);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0), wrong ? 2 : 3);
    take(gm.output, local(TPosition::CO1, 0), 3);
}
CASE(unit_flag_on_one_side, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0), 3);
    take(gm.output, local(TPosition::CO1, 0), wrong ? 0 : 3);
}
CASE(unit_flag_left_set, AicOnly, 1) {
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0), 3);
    if (!wrong) take(gm.output, local(TPosition::CO1, 0), 3);
}

inline void overlap(const LocalTensor<float>& to, em::Repeats a, const LocalTensor<float>& from,
                    em::Repeats b, bool accumulates = false, Site site = Site::here()) {
    em::Instruction op(PIPE_V, "overlap", site);
    op.overlap(to, a, from, b, accumulates);
    op.vector(1);
}
CASE(overlap_inside_a_repeat, AivOnly, 1) { overlap(kIn[wrong ? 8 : 64], {}, kIn, {}); }
CASE(overlap_of_a_later_source, AivOnly, 1) {
    overlap(kIn[64], {8, 1, 8, 2}, wrong ? kIn : kIn[64], {8, 1, 8, 2});
}
CASE(overlap_with_repeat_stride_0, AivOnly, 1) { overlap(kIn, {8, 1, 0, 3}, kIn, {8, 1, 0, 3}, !wrong); }
CASE(overlap_of_another_size, AivOnly, 1) { overlap(kIn, {8, 1, 8, 1}, kIn[wrong ? 0 : 64], {4, 1, 4, 1}); }

}  // namespace cases

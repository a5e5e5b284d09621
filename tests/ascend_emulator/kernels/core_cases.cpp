// Several cores: flags between them, barriers of all, races in global memory, the scalar cache.
#include "harness.h"

namespace cases {

const auto kTile = local(TPosition::VECOUT, 0);
const auto kLoaded = local(TPosition::VECIN, 4096);

// One value of this core to `to`.
inline void publish(const GlobalTensor<float>& to, uint32_t count = 64) {
    fill(kTile, count);
    order<HardEvent::V_MTE3>();
    store(to, kTile, count);
}

CASE(flag_between_cores, MixAic12, 1) {
    if ASCEND_IS_AIC {
        load_operands(gm);
        multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
        order<HardEvent::M_FIX>();
        take(gm.scratch, local(TPosition::CO1, 0));
        if (wrong)
            CrossCoreSetFlag<2, PIPE_MTE2>(8);
        else
            CrossCoreSetFlag<2, PIPE_FIX>(8);
    } else {
        CrossCoreWaitFlag(8);
        load(kLoaded, gm.scratch[GetSubBlockIdx() * 128], 128);
    }
}
CASE(flag_from_the_only_vector_core, MixAic11, 2) {
    const auto slot = gm.scratch[GetBlockIdx() * 64];
    if ASCEND_IS_AIV {
        publish(slot);
        if (wrong)
            CrossCoreSetFlag<2, PIPE_V>(8);
        else
            CrossCoreSetFlag<2, PIPE_MTE3>(8);
    } else {
        CrossCoreWaitFlag(8);
        load(local(TPosition::A1, 0), slot, 64);
    }
}
CASE(flag_between_all_cube_cores, MixAic10, 3) {
    const auto mine = GetBlockIdx();
    load_operands(gm);
    multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
    order<HardEvent::M_FIX>();
    take(gm.scratch[mine * 256], local(TPosition::CO1, 0));
    if (wrong)
        CrossCoreSetFlag<0, PIPE_M>(8);
    else
        CrossCoreSetFlag<0, PIPE_FIX>(8);
    CrossCoreWaitFlag(8);
    order<HardEvent::MTE1_MTE2>();
    load(local(TPosition::A1, 0), gm.scratch[(mine + 1) % 3 * 256], 256);
}
// The slot is written again although the vector cores may still read it.
CASE(flag_back_between_cores, MixAic12, 1) {
    for (int tile = 0; tile < 2; ++tile) {
        if ASCEND_IS_AIC {
            if (tile && !wrong) CrossCoreWaitFlag(9);
            load_operands(gm);
            multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
            order<HardEvent::M_FIX>();
            take(gm.scratch, local(TPosition::CO1, 0));
            PipeBarrier<PIPE_ALL>();
            CrossCoreSetFlag<2, PIPE_FIX>(8);
        } else {
            CrossCoreWaitFlag(8);
            load(kLoaded, gm.scratch[GetSubBlockIdx() * 128], 128);
            PipeBarrier<PIPE_ALL>();
            if (!tile && !wrong) CrossCoreSetFlag<2, PIPE_MTE2>(9);
        }
    }
}
CASE(flag_between_vector_cores, MixAic12, 2) {
    if ASCEND_IS_AIV {
        const auto mine = GetBlockIdx();
        publish(gm.scratch[mine * 64]);
        if (!wrong) {
            CrossCoreSetFlag<1, PIPE_MTE3>(8);
            CrossCoreWaitFlag(8);
        } else
            PipeBarrier<PIPE_ALL>();
        load(kLoaded, gm.scratch[(mine ^ 1) * 64], 64);
    }
}
CASE(flag_between_all_cores, MixAiv10, 6) {
    const auto mine = GetBlockIdx();
    publish(gm.scratch[mine * 64]);
    if (wrong) {
        CrossCoreSetFlag<0, PIPE_MTE2>(8);  // of a pipe that did not write
    } else {
        CrossCoreSetFlag<0, PIPE_MTE3>(8);
    }
    CrossCoreWaitFlag(8);
    load(kLoaded, gm.scratch[(mine + 1) % 6 * 64], 64);
}

CASE(sync_all_missing, MixAiv10, 6) {
    const auto mine = GetBlockIdx();
    publish(gm.scratch[mine * 64]);
    if (!wrong)
        SyncAll();
    else
        PipeBarrier<PIPE_ALL>();
    load(kLoaded, gm.scratch[(mine + 1) % 6 * 64], 64);
}
CASE(sync_all_cube_and_vector, MixAic12, 2) {
    if ASCEND_IS_AIV
        publish(gm.scratch[GetBlockIdx() * 64]);
    if ASCEND_IS_AIV {
        if (wrong)
            SyncAll<true>();
        else
            SyncAll<false>();
    }
    if ASCEND_IS_AIC {
        if (!wrong) SyncAll<false>();
        load(local(TPosition::A1, 0), gm.scratch, 64);
    }
}

CASE(race_of_writes, AivOnly, 2) { publish(gm.output[wrong ? 0 : GetBlockIdx() * 64]); }
// Neighbours in a block of 32 bytes are apart; sharing one element is a race.
CASE(race_of_an_element, AivOnly, 2) { publish(gm.output[GetBlockIdx() * (wrong ? 60 : 61)], 61); }
CASE(race_of_read_and_write, MixAiv10, 2) {
    if (GetBlockIdx() == 0) publish(gm.scratch);
    SyncAll();
    if (GetBlockIdx() == 0) load(kLoaded, gm.scratch, 64);
    if (!wrong) SyncAll();
    if (GetBlockIdx() == 1) publish(gm.scratch);
}
inline void add(const GlobalTensor<float>& to, bool atomic, Site site = Site::here()) {
    em::Instruction op(PIPE_MTE3, "add", site);
    op.read(kTile, {256});
    op.update(to, {256}, {0, 0, atomic});
    op.transfer(em::Memory::UB, em::Memory::GM, 256);
}
CASE(race_of_atomics, MixAiv10, 3) {
    fill(kTile, 64);
    order<HardEvent::V_MTE3>();
    if (GetBlockIdx() == 0) store(gm.output, kTile, 64);
    SyncAll();
    add(gm.output, !wrong || GetBlockIdx() != 2);
}
CASE(race_of_atomic_and_read, MixAiv10, 2) {
    fill(kTile, 64);
    order<HardEvent::V_MTE3>();
    if (GetBlockIdx() == 0) store(gm.output, kTile, 64);
    SyncAll();
    add(gm.output, true);
    order<HardEvent::MTE3_MTE2>();
    if (!wrong) SyncAll();
    if (GetBlockIdx() == 1) load(kLoaded, gm.output, 64);
}

CASE(cross_core_under_aiv_only, AivOnly, 2) {
    if (wrong) CrossCoreSetFlag<0, PIPE_MTE3>(8);
}
CASE(cross_core_wait_under_aic_only, AicOnly, 1) {
    if (wrong) CrossCoreWaitFlag(8);
}
CASE(cross_core_mode_2_without_cubes, MixAiv10, 2) {
    if (wrong)
        CrossCoreSetFlag<2, PIPE_MTE3>(8);
    else
        SyncAll();
}
CASE(cross_core_pipe_s, MixAiv10, 1) {
    if (wrong)
        CrossCoreSetFlag<0, PIPE_S>(8);
    else
        CrossCoreSetFlag<0, PIPE_MTE3>(8);
    CrossCoreWaitFlag(8);
}
CASE(cross_core_id_reserved, MixAiv10, 1) {
    CrossCoreSetFlag<0, PIPE_MTE3>(wrong ? 12 : 15);
    CrossCoreWaitFlag(15);
}
CASE(cross_core_id_out_of_range, MixAiv10, 1) {
    CrossCoreSetFlag<0, PIPE_MTE3>(wrong ? 16 : 15);
    CrossCoreWaitFlag(15);
}
CASE(cross_core_flag_left_set, MixAic12, 1) {
    if ASCEND_IS_AIC
        CrossCoreSetFlag<2, PIPE_FIX>(3);
    if ASCEND_IS_AIV {
        if (!wrong || GetSubBlockIdx() == 0) CrossCoreWaitFlag(3);
    }
}
CASE(cross_core_flag_of_one_sub_block, MixAic12, 1) {
    if ASCEND_IS_AIV {
        if (!wrong || GetSubBlockIdx() == 0) CrossCoreSetFlag<2, PIPE_MTE2>(3);
    }
    if ASCEND_IS_AIC {
        if (!wrong) CrossCoreWaitFlag(3);
    }
}
CASE(cross_core_overflow_mode_2, MixAic12, 1) {
    for (int i = 0; i < 16; ++i) {
        if ASCEND_IS_AIC {
            if (!wrong && i == 15) CrossCoreWaitFlag(4);
            CrossCoreSetFlag<2, PIPE_FIX>(3);
        } else {
            if (wrong && i == 0) CrossCoreWaitFlag(4);
            CrossCoreWaitFlag(3);
            if (i == 0) CrossCoreSetFlag<2, PIPE_MTE2>(4);
        }
    }
}
CASE(cross_core_overflow_mode_1, MixAic12, 1) {
    if ASCEND_IS_AIV {
        for (int i = 0; i < 16; ++i) {
            if (!wrong) SyncAll<true>();
            CrossCoreSetFlag<1, PIPE_MTE3>(3);
            if (!wrong) CrossCoreWaitFlag(3);
        }
    }
}
CASE(cross_core_overflow_mode_0, MixAiv10, 3) {
    for (int i = 0; i < 16; ++i) {
        CrossCoreSetFlag<0, PIPE_MTE3>(3);
        if (!wrong) CrossCoreWaitFlag(3);
    }
}

CASE(deadlock_of_a_flag, MixAic12, 1) {
    if ASCEND_IS_AIC {
        if (!wrong) CrossCoreSetFlag<2, PIPE_FIX>(3);
    } else {
        CrossCoreWaitFlag(3);
    }
}
CASE(deadlock_of_each_other, MixAic12, 1) {
    if ASCEND_IS_AIC {
        if (!wrong) CrossCoreSetFlag<2, PIPE_FIX>(3);
        CrossCoreWaitFlag(4);
        if (wrong) CrossCoreSetFlag<2, PIPE_FIX>(3);
    } else {
        CrossCoreWaitFlag(3);
        CrossCoreSetFlag<2, PIPE_MTE2>(4);
    }
}
CASE(deadlock_of_sync_all, MixAiv10, 4) {
    if (!wrong || GetBlockIdx() != 2) SyncAll();
}
static em::Options impatient() {
    em::Options options;
    options.wait_limit_s = 0.2;
    return options;
}
CASE_WITH(deadlock_of_a_poll, AivOnly, 2, impatient()) {
    const GlobalTensor<float> flag = gm.scratch;
    if (GetBlockIdx() == 0) {
        flag.SetValue(0, 1.0f);
        DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(flag);
    } else {
        while (wrong) DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(flag);
    }
}

CASE(sync_all_under_aiv_only, AivOnly, 2) {
    if (wrong) SyncAll();
}
CASE(sync_all_false_without_cubes, MixAiv10, 2) {
    if (wrong)
        SyncAll<false>();
    else
        SyncAll<true>();
}
CASE(sync_all_true_on_a_cube, MixAic12, 1) {
    if (wrong)
        SyncAll<true>();
    else if ASCEND_IS_AIV
        SyncAll<true>();
}
static em::Options small_chip() {
    em::Options options;
    options.cores = 2;
    return options;
}
CASE_WITH(sync_all_beyond_the_chip, MixAiv10, 5, small_chip()) {
    if (wrong) SyncAll();
}

CASE(cache_not_cleaned, AivOnly, 1) {
    gm.output.SetValue(3, 1.0f);
    if (!wrong) DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(gm.output);
}
CASE(cache_cleaned_from_behind, AivOnly, 1) {
    gm.output.SetValue(3, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(gm.output[wrong ? 4 : 3]);
}
CASE(cache_read_by_a_copy, AivOnly, 1) {
    for (int i = 0; i < 8; ++i) gm.output.SetValue(i, 1.0f);
    if (!wrong) DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(gm.output);
    order<HardEvent::S_MTE2>();
    load(kLoaded, gm.output, 8);
    if (wrong) DataCacheCleanAndInvalid<float, CacheLine::ENTIRE_DATA_CACHE>(gm.output);
}
CASE(cache_stale, MixAiv10, 2) {
    if (GetBlockIdx() == 0) publish(gm.scratch);
    SyncAll();
    if (GetBlockIdx() == 1) gm.scratch.GetValue(0);
    SyncAll();
    if (GetBlockIdx() == 0) {
        load(kLoaded, gm.input[64], 64);
        order<HardEvent::MTE2_MTE3>();
        store(gm.scratch, kLoaded, 64);
    }
    SyncAll();
    if (GetBlockIdx() == 1) {
        if (!wrong) DataCacheCleanAndInvalid<float, CacheLine::SINGLE_CACHE_LINE>(gm.scratch);
        gm.scratch.GetValue(0);
    }
}
// Two cores write into one line of 64 bytes: the later write-back restores the old neighbour.
CASE(cache_line_shared, MixAiv10, 2) {
    const auto mine = gm.output[GetBlockIdx() * (wrong ? 8 : 16)];
    mine.SetValue(0, 1.0f);
    DataCacheCleanAndInvalid<float, CacheLine::ENTIRE_DATA_CACHE>(mine);
}

// Sets of two pipes may arrive in either order: which of them a wait sees is not known.
CASE(order_of_sets, MixAic12, 1) {
    if ASCEND_IS_AIC {
        load_operands(gm);
        multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
        order<HardEvent::M_FIX>();
        take(gm.scratch, local(TPosition::CO1, 0));
        CrossCoreSetFlag<2, PIPE_FIX>(3);
        CrossCoreSetFlag<2, PIPE_MTE1>(wrong ? 3 : 4);
    } else {
        CrossCoreWaitFlag(3);
        load(kLoaded, gm.scratch, 64);
        CrossCoreWaitFlag(wrong ? 3 : 4);
    }
}

}  // namespace cases

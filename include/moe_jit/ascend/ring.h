// Tiles that pass through global memory between a cube core and its two vector cores.
#pragma once

#include "moe_jit/ascend/gm.h"

namespace moe_jit::ascend {

// Mode of cross-core flags between a cube core and its vector cores.
constexpr uint8_t kWithinGroup = 2;

// Ids of the flags, apart from those of SyncAll (11 to 14).
constexpr uint16_t kResultReady = 0, kResultFree = 1, kWeightReady = 2, kWeightFree = 3;

// kWrite and kRead are the pipes that write and read the slots.
template <uint16_t kReady, uint16_t kFree, pipe_t kWrite, pipe_t kRead>
class Ring {
  public:
    __aicore__ inline Ring(Address slots, int32_t slot_bytes, int32_t stages)
        : slots_(slots), slot_bytes_(slot_bytes), stages_(stages) {}

    // Producer: the slot to write.
    __aicore__ inline Address acquire() {
        if (count_ >= stages_) CrossCoreWaitFlag(kFree);
        return slot();
    }
    __aicore__ inline void publish() {
        CrossCoreSetFlag<kWithinGroup, kWrite>(kReady);
        ++count_;
    }
    // Producer, at the end: leaves all flags clear.
    __aicore__ inline void drain() {
        for (int32_t i = least(count_, stages_); i > 0; --i) CrossCoreWaitFlag(kFree);
    }

    // Consumer: the slot to read.
    __aicore__ inline Address receive() {
        CrossCoreWaitFlag(kReady);
        return slot();
    }
    __aicore__ inline void release() {
        CrossCoreSetFlag<kWithinGroup, kRead>(kFree);
        ++count_;
    }

  private:
    __aicore__ inline Address slot() const {
        return slots_ + static_cast<int64_t>(count_ % stages_) * slot_bytes_;
    }

    Address slots_;
    int32_t slot_bytes_, stages_;
    int32_t count_ = 0;
};

using ResultRing = Ring<kResultReady, kResultFree, PIPE_FIX, PIPE_MTE2>;
using WeightRing = Ring<kWeightReady, kWeightFree, PIPE_MTE3, PIPE_MTE2>;

}  // namespace moe_jit::ascend

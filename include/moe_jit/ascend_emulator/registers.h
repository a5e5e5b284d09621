// Control registers of a core that instructions set and later instructions read. Reset at launch.
#pragma once

#include <cstdint>

namespace moe_jit::emulator {

// What a transfer to global memory does with the value that is there.
enum class AtomicType : uint8_t { kNone, kInt8, kInt16, kInt32, kHalf, kBfloat16, kFloat };

struct Registers {
    uint64_t mask[2] = {~uint64_t{0}, ~uint64_t{0}};  // one bit per lane; in counter mode [0] counts elements
    bool counter_mode = false;
    uint16_t deq_scale = 0;  // DEQSCALE, a half; valid once set
    bool deq_scale_set = false;
    AtomicType atomic = AtomicType::kNone;
    uint64_t pad_value = 0;  // SetPadValue, as raw bits; valid once set
    bool pad_value_set = false;
    uint32_t barriers[8] = {};   // PipeBarrier calls so far, for each pipe
    uint32_t product_begin = 0;  // bytes of L0C that the last Mmad wrote
    uint32_t product_end = 0;
    uint32_t product_barriers = 0;  // barriers of pipe M until then
};

}  // namespace moe_jit::emulator

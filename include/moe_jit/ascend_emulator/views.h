// What the machine knows of a tensor: where its bytes lie. The typed tensors of the kernel language derive
// from these.
#pragma once

#include <cstdint>

#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

struct LocalView {
    AscendC::TPosition position = AscendC::TPosition::MAX;
    uint32_t address = 0;     // in its physical memory
    uint32_t bytes = 0;       // from `address` to the tensor's end
    int32_t buffer = -1;      // index into the core's buffers, -1 without a TPipe
    uint32_t allocation = 0;  // count of AllocTensor calls of that buffer when the tensor was made

    Memory memory() const { return memory_of(position); }
};

struct GlobalView {
    uint8_t* address = nullptr;
    uint64_t bytes = 0;    // from `address` to the tensor's end
    bool bounded = false;  // whether SetGlobalBuffer was told a size
};

// `count` runs of `bytes` bytes, their starts `stride` bytes apart, the first `offset` bytes into a tensor.
struct Runs {
    uint64_t bytes = 0;
    uint64_t count = 1;
    uint64_t stride = 0;
    uint64_t offset = 0;

    uint64_t end() const { return count && bytes ? offset + (count - 1) * stride + bytes : offset; }
};

// Operand of a vector instruction: `repeats` times `blocks` blocks of 32 bytes; strides in blocks, start to
// start.
struct Repeats {
    uint32_t blocks = 8;
    uint32_t block_stride = 1;
    uint32_t repeat_stride = 8;
    uint32_t repeats = 1;

    uint32_t block(uint32_t repeat, uint32_t i) const { return repeat * repeat_stride + i * block_stride; }
    uint32_t end() const { return blocks && repeats ? block(repeats - 1, blocks - 1) + 1 : 0; }
    bool operator==(const Repeats& other) const {
        return blocks == other.blocks && block_stride == other.block_stride &&
               repeat_stride == other.repeat_stride && repeats == other.repeats;
    }
};

struct Access {
    uint32_t alignment = 0;  // of the starts of all runs, in bytes; 0: the memory's own rule
    uint8_t unit_flag = 0;   // of Mmad and Fixpipe on L0C
    bool atomic = false;     // a write to GM that adds
};

}  // namespace moe_jit::emulator

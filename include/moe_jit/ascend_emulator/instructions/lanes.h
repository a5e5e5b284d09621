// Which elements a vector instruction works on, and where they lie. A repeat is 256 bytes of the widest
// operand; lanes are its elements, masked by bits or by a count, or counted over all repeats (counter mode).
#pragma once

#include <algorithm>

#include "moe_jit/ascend_emulator/instruction.h"
#include "moe_jit/ascend_emulator/instructions/formats.h"
#include "moe_jit/ascend_emulator/tensor.h"

namespace moe_jit::emulator {

using AscendC::GlobalTensor;
using AscendC::LocalTensor;

// In blocks of 32 bytes, from start to start.
struct Strides {
    uint32_t block = 1;
    uint32_t repeat = 8;
};

struct Lanes {
    uint32_t per_repeat = 0;
    uint32_t repeats = 0;  // with the mask below
    uint32_t active = 0;   // the first lanes of each, unless `bitwise`
    bool bitwise = false;
    uint64_t bits[2] = {};
    uint32_t tail = 0;  // lanes of one more repeat

    static Lanes counted(uint32_t per_repeat, uint64_t elements) {
        Lanes lanes;
        lanes.per_repeat = lanes.active = per_repeat;
        lanes.repeats = static_cast<uint32_t>(elements / per_repeat);
        lanes.tail = static_cast<uint32_t>(elements % per_repeat);
        return lanes;
    }

    static Lanes masked(uint32_t per_repeat, const uint64_t mask[2], uint32_t repeats) {
        Lanes lanes;
        lanes.per_repeat = per_repeat;
        lanes.repeats = repeats;
        for (int word = 0; word < 2; ++word) {
            const uint32_t used = std::min(64u, per_repeat - std::min(per_repeat, 64u * word));
            lanes.bits[word] = used == 64 ? mask[word] : mask[word] & ((uint64_t{1} << used) - 1);
        }
        while (lanes.active < std::min(per_repeat, 128u) && lanes.bit(lanes.active)) ++lanes.active;
        const uint32_t set =
            static_cast<uint32_t>(__builtin_popcountll(lanes.bits[0]) + __builtin_popcountll(lanes.bits[1]));
        lanes.bitwise = set != lanes.active;
        if (set == 0) lanes.repeats = 0;
        return lanes;
    }

    bool none() const { return repeats == 0 && tail == 0; }
    uint32_t total() const { return repeats + (tail != 0); }
    bool bit(uint32_t lane) const { return bits[lane / 64] >> (lane % 64) & 1; }
    uint32_t limit(uint32_t repeat) const {
        if (repeat >= repeats) return tail;
        return bitwise ? per_repeat : active;
    }
    bool on(uint32_t repeat, uint32_t lane) const { return !bitwise || repeat >= repeats || bit(lane); }
};

// Calls emit(Runs, fractional) for the bytes of an operand with elements of `bits` bits; `fractional` runs
// may start inside a block.
template <typename Emit>
void each_lane_run(const Lanes& lanes, Strides strides, uint32_t bits, Emit emit) {
    const auto prefix = [&](uint32_t count, uint32_t first, uint32_t repeats) {
        if (count == 0 || repeats == 0) return;
        if (strides.repeat == 0) first = 0, repeats = 1;
        const uint64_t bytes = (uint64_t{count} * bits + 7) / 8;
        const uint64_t repeat_bytes = uint64_t{strides.repeat} * kBlock, start = first * repeat_bytes;
        if (strides.block == 1) {
            emit(Runs{bytes, repeats, repeat_bytes, start}, false);
            return;
        }
        const uint64_t blocks = strides.block == 0 ? 1 : (bytes + kBlock - 1) / kBlock;
        for (uint64_t block = 0; block < blocks; ++block) {
            const uint64_t part = std::min<uint64_t>(kBlock, bytes - block * kBlock);
            emit(Runs{part, repeats, repeat_bytes, start + block * strides.block * kBlock}, false);
        }
    };
    if (!lanes.bitwise) {
        prefix(lanes.active, 0, lanes.repeats);
    } else {
        const uint32_t per_block = kBlock * 8 / bits;
        const uint64_t repeat_bytes = uint64_t{strides.repeat} * kBlock;
        const uint32_t repeats = strides.repeat == 0 ? std::min(1u, lanes.repeats) : lanes.repeats;
        emit(Runs{0}, false);
        for (uint32_t lane = 0; lane < lanes.per_repeat;) {
            uint32_t end = lane;
            while (end < lanes.per_repeat && lanes.bit(end) && (end == lane || end % per_block)) ++end;
            if (end != lane) {
                const uint64_t at =
                    uint64_t{lane / per_block} * strides.block * kBlock + lane % per_block * bits / 8;
                emit(Runs{(uint64_t{end - lane} * bits + 7) / 8, repeats, repeat_bytes, at}, true);
            }
            lane = std::max(end, lane + 1);
        }
    }
    prefix(lanes.tail, lanes.repeats, 1);
}

// An operand whose bytes have been checked. `at` gives an element's index in the tensor.
template <typename T>
struct Operand {
    T* data = nullptr;
    Strides strides;
    static constexpr uint32_t kPerBlock = kBlock * 8 / bits_of<std::remove_const_t<T>>();

    int64_t at(uint32_t repeat, uint32_t lane) const {
        const uint64_t block = uint64_t{repeat} * strides.repeat + uint64_t{lane / kPerBlock} * strides.block;
        return static_cast<int64_t>(block * kPerBlock + lane % kPerBlock);
    }
    T& operator()(uint32_t repeat, uint32_t lane) const { return data[at(repeat, lane)]; }
};

template <typename T>
uint32_t fractional_alignment() {
    return std::max<uint32_t>(1, bits_of<T>() / 8);
}

template <typename T>
auto operand_read(Instruction& op, const LocalTensor<T>& tensor, const Lanes& lanes, Strides strides) {
    const typename LocalTensor<T>::Storage* data = nullptr;
    each_lane_run(lanes, strides, bits_of<T>(), [&](Runs runs, bool fractional) {
        data = op.read(tensor, runs, Access{fractional ? fractional_alignment<T>() : 0});
    });
    return Operand<const typename LocalTensor<T>::Storage>{data, strides};
}

template <typename T>
auto operand_write(Instruction& op, const LocalTensor<T>& tensor, const Lanes& lanes, Strides strides) {
    op.require(strides.block != 0 || lanes.per_repeat * bits_of<T>() <= kBlock * 8,
               "the destination's block stride is 0, which is undefined");
    typename LocalTensor<T>::Storage* data = nullptr;
    each_lane_run(lanes, strides, bits_of<T>(), [&](Runs runs, bool fractional) {
        data = op.write(tensor, runs, Access{fractional ? fractional_alignment<T>() : 0});
    });
    return Operand<typename LocalTensor<T>::Storage>{data, strides};
}

// d = f(s...) in every lane. Repeats are in order, so that one may read what an earlier one wrote.
template <typename Function, typename Destination, typename... Sources>
void each_lane(const Lanes& lanes, Function f, Operand<Destination> d, Operand<const Sources>... s) {
    const bool dense = !lanes.bitwise && d.strides.block == 1 && ((s.strides.block == 1) && ...);
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        const uint32_t limit = lanes.limit(repeat);
        if (dense) {
            const auto row = [&](Destination* out, const Sources*... in) {
                for (uint32_t lane = 0; lane < limit; ++lane) out[lane] = f(in[lane]...);
            };
            row(d.data + d.at(repeat, 0), s.data + s.at(repeat, 0)...);
            continue;
        }
        for (uint32_t lane = 0; lane < limit; ++lane) {
            if (lanes.on(repeat, lane)) d(repeat, lane) = f(s(repeat, lane)...);
        }
    }
}

}  // namespace moe_jit::emulator

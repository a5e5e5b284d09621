// Transfers to global memory: plain stores, or additions to what is there after SetAtomicAdd.
#pragma once

#include <cstring>

#include "moe_jit/ascend_emulator/instructions/elementwise.h"

namespace moe_jit::emulator {

template <typename T>
constexpr AtomicType atomic_type() {
    if constexpr (std::is_same_v<T, int8_t>)
        return AtomicType::kInt8;
    else if constexpr (std::is_same_v<T, int16_t>)
        return AtomicType::kInt16;
    else if constexpr (std::is_same_v<T, int32_t>)
        return AtomicType::kInt32;
    else if constexpr (std::is_same_v<T, half>)
        return AtomicType::kHalf;
    else if constexpr (std::is_same_v<T, bfloat16_t>)
        return AtomicType::kBfloat16;
    else if constexpr (std::is_same_v<T, float>)
        return AtomicType::kFloat;
    else
        return AtomicType::kNone;
}

// A destination in global memory under the current atomic state.
template <typename T>
class GlobalStore {
  public:
    using Storage = typename GlobalTensor<T>::Storage;

    GlobalStore(Instruction& op, const GlobalTensor<T>& tensor)
        : op_(op), tensor_(tensor), adds_(op.on().registers.atomic != AtomicType::kNone) {
        op.require(!adds_ || atomic_type<T>() == op.on().registers.atomic,
                   "SetAtomicAdd is on for another type than %s", format_name<T>());
    }

    // Runs as in Instruction::write.
    void claim(Runs runs, uint32_t alignment) {
        data_ = op_.write(tensor_, runs, Access{alignment, 0, adds_});
    }

    // `count` elements from byte `at` on.
    void put(uint64_t at, const Storage* values, uint64_t count) {
        uint8_t* target = reinterpret_cast<uint8_t*>(data_) + at;
        if (!adds_) {
            std::memcpy(target, values, count * sizeof(Storage));
            return;
        }
        if constexpr (atomic_type<T>() != AtomicType::kNone) {
            for (uint64_t i = 0; i < count; ++i) {
                T old;
                std::memcpy(&old, target + i * sizeof(T), sizeof(T));
                old = fitted<T>(op_, wide<T>(old) + wide<T>(values[i]));
                std::memcpy(target + i * sizeof(T), &old, sizeof(T));
            }
        }
    }

  private:
    Instruction& op_;
    const GlobalTensor<T>& tensor_;
    const bool adds_;
    Storage* data_ = nullptr;
};

}  // namespace moe_jit::emulator

namespace AscendC {

// Later transfers to global memory add in the format T, until SetAtomicNone.
template <typename T>
void SetAtomicAdd(Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(PIPE_S, "SetAtomicAdd", site);
    op.scalar();
    op.require(atomic_type<T>() != AtomicType::kNone, "has no form for %s on this chip", format_name<T>());
    op.on().registers.atomic = atomic_type<T>();
}

inline void SetAtomicNone() {
    moe_jit::emulator::core().registers.atomic = moe_jit::emulator::AtomicType::kNone;
}
inline void DisableDmaAtomic() { SetAtomicNone(); }

}  // namespace AscendC

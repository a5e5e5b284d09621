// One instruction on memories that the caller filled, for tests: ctypes calls run_instruction().
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

#include "kernel_operator.h"
#include "moe_jit/ascend_emulator/launch.h"

namespace driver {

namespace em = moe_jit::emulator;
using namespace AscendC;

// The numbers that a test passes, taken one after another.
class Parameters {
  public:
    Parameters(const int64_t* values, int count) : at_(values), end_(values + count) {}
    int64_t next() {
        if (at_ == end_) throw std::invalid_argument("too few parameters");
        return *at_++;
    }
    template <typename T = uint32_t>
    T as() {
        return static_cast<T>(next());
    }
    void done() const {
        if (at_ != end_) throw std::invalid_argument("too many parameters");
    }

  private:
    const int64_t* at_;
    const int64_t* end_;
};

using Body = std::function<void(Parameters&, uint8_t*)>;  // the second is global memory

inline std::map<std::string, Body>& table() {
    static std::map<std::string, Body> bodies;
    return bodies;
}
struct Registered {
    Registered(const char* name, Body body) { table().emplace(name, std::move(body)); }
};
#define INSTRUCTION(NAME)                                          \
    static void NAME(Parameters& p, [[maybe_unused]] uint8_t* gm); \
    static const Registered NAME##_registered(#NAME, NAME);        \
    static void NAME(Parameters& p, [[maybe_unused]] uint8_t* gm)

template <typename T>
struct Type {
    using type = T;
};

// Calls function(Type<T>{}) for the type with this code, among `Types`, in their order.
template <typename... Types, typename Function>
void with_type(int64_t code, Function function) {
    int64_t i = 0;
    bool found = false;
    ((i++ == code ? (found = true, function(Type<Types>{}), 0) : 0), ...);
    if (!found) throw std::invalid_argument("unknown type code");
}

// half, float, bfloat16_t, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, int4b_t
template <typename Function>
void with_any_type(int64_t code, Function function) {
    with_type<half, float, bfloat16_t, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t,
              int4b_t>(code, function);
}
template <typename Function>
void with_vector_type(int64_t code, Function function) {
    with_type<half, float, bfloat16_t, int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t>(code, function);
}

// From a byte address to the end of UB.
template <typename T>
LocalTensor<T> tensor(TPosition position, int64_t address) {
    const uint32_t capacity = em::traits(em::memory_of(position)).capacity;
    return LocalTensor<T>(position, static_cast<uint32_t>(address),
                          static_cast<uint32_t>((capacity - address) * 8 / em::bits_of<T>()));
}
// A position, then an address.
template <typename T>
LocalTensor<T> next_tensor(Parameters& p) {
    const auto position = static_cast<TPosition>(p.next());
    return tensor<T>(position, p.next());
}
template <typename T>
LocalTensor<T> ub(int64_t address) {
    return tensor<T>(TPosition::VECCALC, address);
}
template <typename T>
GlobalTensor<T> global(uint8_t* address) {
    GlobalTensor<T> tensor;
    tensor.SetGlobalBuffer(reinterpret_cast<T*>(address));
    return tensor;
}
template <typename T>
T scalar(int64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace driver

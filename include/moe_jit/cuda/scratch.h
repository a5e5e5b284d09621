// Scratch memory, carved in pieces of 16 bytes.
#pragma once

#include <cstdint>

namespace moe_jit::cuda {

// With a null base it only counts.
class Scratch {
  public:
    explicit Scratch(char* base) : base_(base) {}

    template <class T>
    T* take(int64_t count) {
        T* piece = reinterpret_cast<T*>(base_ + bytes);
        bytes += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 16;
        return piece;
    }

    int64_t bytes = 0;

  private:
    char* base_;
};

}  // namespace moe_jit::cuda

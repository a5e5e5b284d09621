// Tensors of the kernel language: typed views of global and of on-chip memory. Offsets and sizes in elements.
#pragma once

#include <cstring>

#include "moe_jit/ascend_emulator/instruction.h"
#include "moe_jit/ascend_emulator/scalar_access.h"

namespace AscendC {

using moe_jit::emulator::Site;

enum class CacheMode : uint8_t {
    CACHE_MODE_DISABLE,
    CACHE_MODE_NORMAL,
    CACHE_MODE_LAST,
    CACHE_MODE_PERSISTENT
};
enum class CacheRwMode : uint8_t { READ = 1, WRITE = 2, RW = 3 };

template <typename T>
constexpr uint64_t BytesOf(uint64_t elements) {
    return elements * moe_jit::emulator::bits_of<T>() / 8;
}

template <typename T>
class LocalTensor : public moe_jit::emulator::LocalView {
  public:
    using PrimType = T;
    using Storage = std::conditional_t<std::is_same_v<T, int4b_t>, uint8_t, T>;

    LocalTensor() = default;
    explicit LocalTensor(const LocalView& view) : LocalView(view) {}
    // Without a TPipe: `address` in bytes, `size` in elements.
    LocalTensor(TPosition position, uint32_t address, uint32_t size) {
        this->position = position;
        this->address = address;
        bytes = static_cast<uint32_t>(BytesOf<T>(size));
    }

    LocalTensor operator[](uint32_t offset) const {
        LocalTensor part = *this;
        const uint64_t skipped = BytesOf<T>(offset);
        part.address += static_cast<uint32_t>(skipped);
        part.bytes = skipped < bytes ? bytes - static_cast<uint32_t>(skipped) : 0;
        return part;
    }
    template <typename U>
    LocalTensor<U> ReinterpretCast() const {
        return LocalTensor<U>(static_cast<const LocalView&>(*this));
    }

    uint32_t GetSize() const { return bytes * 8 / moe_jit::emulator::bits_of<T>(); }
    uint32_t GetLength() const { return bytes; }
    void SetSize(uint32_t size) { bytes = static_cast<uint32_t>(BytesOf<T>(size)); }
    TPosition GetPosition() const { return position; }
    uint64_t GetPhyAddr() const { return address; }

    T GetValue(uint32_t index, Site site = Site::here()) const {
        moe_jit::emulator::Instruction op(PIPE_S, "LocalTensor::GetValue", site);
        op.scalar();
        const T* data = op.read(*this, {sizeof(T), 1, 0, index * sizeof(T)}, {sizeof(T)});
        return op.computes() ? data[index] : T{};
    }
    template <typename U>
    void SetValue(uint32_t index, U value, Site site = Site::here()) const {
        moe_jit::emulator::Instruction op(PIPE_S, "LocalTensor::SetValue", site);
        op.scalar();
        T* data = op.write(*this, {sizeof(T), 1, 0, index * sizeof(T)}, {sizeof(T)});
        if (op.computes()) data[index] = static_cast<T>(value);
    }
};

template <typename T>
class GlobalTensor : public moe_jit::emulator::GlobalView {
  public:
    using PrimType = T;
    using Storage = std::conditional_t<std::is_same_v<T, int4b_t>, uint8_t, T>;

    void SetGlobalBuffer(T* buffer) {
        address = reinterpret_cast<uint8_t*>(buffer);
        bounded = false;
    }
    void SetGlobalBuffer(T* buffer, uint64_t size) {
        address = reinterpret_cast<uint8_t*>(buffer);
        bytes = BytesOf<T>(size);
        bounded = true;
    }

    GlobalTensor operator[](uint64_t offset) const {
        GlobalTensor part = *this;
        const uint64_t skipped = BytesOf<T>(offset);
        part.address += skipped;
        part.bytes = skipped < bytes ? bytes - skipped : 0;
        return part;
    }
    template <typename U>
    GlobalTensor<U> ReinterpretCast() const {
        GlobalTensor<U> other;
        static_cast<GlobalView&>(other) = *this;
        return other;
    }

    uint64_t GetSize() const { return bytes * 8 / moe_jit::emulator::bits_of<T>(); }
    const T* GetPhyAddr(uint64_t offset = 0) const {
        return reinterpret_cast<const T*>(address + BytesOf<T>(offset));
    }
    void SetL2CacheHint(CacheMode, CacheRwMode = CacheRwMode::RW) {}

    T GetValue(uint64_t index, Site site = Site::here()) const {
        T value;
        moe_jit::emulator::scalar_load(*this, index * sizeof(T), &value, sizeof(T), site);
        return value;
    }
    template <typename U>
    void SetValue(uint64_t index, U value, Site site = Site::here()) const {
        const T stored = static_cast<T>(value);
        moe_jit::emulator::scalar_store(*this, index * sizeof(T), &stored, sizeof(T), site);
    }
};

// A single line: from the tensor's first byte to the end of its line.
template <typename T, CacheLine line>
void DataCacheCleanAndInvalid(const GlobalTensor<T>& tensor, Site site = Site::here()) {
    moe_jit::emulator::clean_cache(tensor, line == CacheLine::ENTIRE_DATA_CACHE, site);
}
template <typename T, CacheLine line, DcciDst>
void DataCacheCleanAndInvalid(const GlobalTensor<T>& tensor, Site site = Site::here()) {
    moe_jit::emulator::clean_cache(tensor, line == CacheLine::ENTIRE_DATA_CACHE, site);
}

}  // namespace AscendC

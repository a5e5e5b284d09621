// Rows of a matrix through shared memory, fetched ahead of their use by bulk copies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moe_jit::cuda {

namespace detail {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void init_barrier(uint64_t* barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

// Makes initialised barriers visible to bulk copies.
__device__ __forceinline__ void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void wait_barrier(uint64_t* barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// Addresses and size are multiples of 16; the barrier completes a phase when all bytes have arrived.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes,
                                          uint64_t* barrier) {
    const uint32_t target = shared_address(barrier);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(target), "r"(bytes)
                 : "memory");
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(shared)),
        "l"(global), "r"(bytes), "r"(target)
        : "memory");
}

}  // namespace detail

// A CTA's share of `count` rows, as even as possible.
struct RowShare {
    int64_t first, last;

    __device__ static RowShare of(int64_t count) {
        return {count * blockIdx.x / gridDim.x, count * (blockIdx.x + 1) / gridDim.x};
    }
};

// Consecutive rows of a matrix, seen by all threads of a CTA. Rows begin at multiples of 16 bytes.
class RowStream {
  public:
    static constexpr int kStages = 3;

    struct Barriers {
        uint64_t full[kStages];
    };

    // Before this no thread may use the stream; the caller then synchronises the CTA.
    __device__ static void init(Barriers& barriers) {
        if (threadIdx.x != 0) return;
        for (uint64_t& barrier : barriers.full) detail::init_barrier(&barrier);
        detail::fence_barrier_init();
    }

    // `slots` has room for kStages rows.
    __device__ RowStream(Barriers& barriers, char* slots, const void* matrix, uint32_t row_bytes,
                         const RowShare& rows)
        : barriers_(barriers), slots_(slots), row_bytes_(row_bytes) {
        begin(matrix, rows);
    }

    // Other rows instead, before the first wait(); by the whole CTA.
    __device__ void restart(const void* matrix, const RowShare& rows) {
        for (int i = 0; i < ahead_; ++i) wait();
        __syncthreads();
        begin(matrix, rows);
    }

    // The next row, once it is there.
    __device__ __forceinline__ const char* wait() {
        detail::wait_barrier(&barriers_.full[slot_], parity_);
        const char* row = slots_ + slot_ * row_bytes_;
        slot_ = slot_ + 1 == kStages ? 0 : slot_ + 1;
        parity_ ^= slot_ == 0;
        return row;
    }

    // Called once for every row, when no thread reads the row before it any more.
    __device__ __forceinline__ void fetch() {
        if (next_ < end_ && threadIdx.x == 0) {
            detail::bulk_copy(slots_ + fetch_slot_ * row_bytes_, next_, row_bytes_,
                              &barriers_.full[fetch_slot_]);
            fetch_slot_ = fetch_slot_ + 1 == kStages ? 0 : fetch_slot_ + 1;
        }
        next_ += row_bytes_;
    }

  private:
    __device__ void begin(const void* matrix, const RowShare& rows) {
        next_ = static_cast<const char*>(matrix) + rows.first * row_bytes_;
        end_ = static_cast<const char*>(matrix) + rows.last * row_bytes_;
        ahead_ = static_cast<int>(min(rows.last - rows.first, int64_t{kStages - 1}));
        for (int i = 0; i + 1 < kStages; ++i) fetch();
    }

    Barriers& barriers_;
    char* slots_;
    const char* next_;
    const char* end_;
    int ahead_;  // rows that begin() requested
    uint32_t row_bytes_;
    uint32_t slot_ = 0, parity_ = 0, fetch_slot_ = 0;
};

// The largest of a value that every thread of the CTA has, for one row after another.
class RowMaximum {
  public:
    // Rows in turn: one is read while the next is written and the one before is cleared.
    static constexpr uint32_t kTurns = 3;
    struct Storage {
        uint32_t bits[kTurns];
    };

    __device__ static void init(Storage& storage) {
        if (threadIdx.x < kTurns) storage.bits[threadIdx.x] = 0;
    }

    __device__ explicit RowMaximum(Storage& storage) : storage_(storage) {}

    // Not negative and not NaN; by all lanes of a warp. The CTA then synchronises.
    __device__ __forceinline__ void add(float value) {
        const uint32_t largest = __reduce_max_sync(~0u, __float_as_uint(value));
        if (largest != 0 && threadIdx.x % 32 == 0) atomicMax(&storage_.bits[turn_], largest);
    }

    // Once for every row; the maximum.
    __device__ __forceinline__ float take() {
        const float value = __uint_as_float(storage_.bits[turn_]);
        if (threadIdx.x == 0) storage_.bits[turn_ == 0 ? kTurns - 1 : turn_ - 1] = 0;
        turn_ = turn_ + 1 == kTurns ? 0 : turn_ + 1;
        return value;
    }

  private:
    Storage& storage_;
    uint32_t turn_ = 0;
};

}  // namespace moe_jit::cuda

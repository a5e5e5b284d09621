// Rows of a matrix through shared memory, fetched ahead of their use by bulk copies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moe_jit::cuda {

namespace detail {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The same value, which the compiler keeps in a register instead of deriving it anew for every use.
__device__ __forceinline__ uint32_t keep(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}
template <class T>
__device__ __forceinline__ T* keep_shared(T* pointer) {
    return static_cast<T*>(__cvta_shared_to_generic(keep(shared_address(pointer))));
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

// Neither reads nor changes what memory holds. Address and size are multiples of 16.
__device__ __forceinline__ void prefetch_to_l2(const void* global, uint32_t bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes) : "memory");
}

}  // namespace detail

// A CTA's share of `count` rows, as even as possible.
template <class Index>
struct RowShare {
    Index first, last;

    __device__ static RowShare of(Index count) {
        const Index share = count / gridDim.x, rest = count % gridDim.x;
        const Index first = share * blockIdx.x + min(static_cast<Index>(blockIdx.x), rest);
        return {first, first + share + (blockIdx.x < rest)};
    }
};

// Consecutive rows of a matrix, seen by all threads of a CTA. Rows begin at multiples of 16 bytes.
class RowStream {
  public:
    static constexpr int kStages = 3;
    static constexpr int64_t kMaxRows = INT32_MAX;

    struct Barriers {
        uint64_t full[kStages];
    };

    // Before this no thread may use the stream; the caller then synchronises the CTA.
    __device__ static void init(Barriers& barriers) {
        if (threadIdx.x != 0) return;
        for (uint64_t& barrier : barriers.full) detail::init_barrier(&barrier);
        detail::fence_barrier_init();
    }

    // Brings the first of `rows` near, also while it is still being written.
    __device__ static void prefetch(const void* matrix, uint32_t row_bytes, const RowShare<int>& rows) {
        if (threadIdx.x != 0) return;
        detail::prefetch_to_l2(static_cast<const char*>(matrix) + int64_t{rows.first} * row_bytes, row_bytes);
    }

    // `slots` has room for kStages rows, or for all of the CTA's, if they are fewer. Requests the first row;
    // what else is needed before it can be used had better be requested before fill().
    __device__ RowStream(Barriers& barriers, char* slots, const void* matrix, uint32_t row_bytes,
                         const RowShare<int>& rows)
        : full_(detail::keep_shared(barriers.full)),
          slots_(detail::keep_shared(slots)),
          row_bytes_(row_bytes) {
        begin(matrix, rows);
    }

    // Other rows instead of those that the stream was made with, which were some, before fill(); by the whole
    // CTA.
    __device__ void restart(const void* matrix, const RowShare<int>& rows) {
        wait();
        slot_ = 0;
        __syncthreads();
        begin(matrix, rows);
    }

    // Requests as many more rows as there is room for.
    __device__ void fill() {
#pragma unroll
        for (int i = 0; i + 2 < kStages; ++i) fetch();
    }

    // The next row, once it is there.
    __device__ __forceinline__ const char* wait() {
        detail::wait_barrier(&full_[slot_], parities_ >> slot_ & 1);
        const char* row = slots_ + slot_ * row_bytes_;
        parities_ ^= 1u << slot_;
        slot_ = slot_ + 1 == kStages ? 0 : slot_ + 1;
        return row;
    }

    // Called once for every row, when no thread reads the row before it any more.
    __device__ __forceinline__ void fetch() {
        if (threadIdx.x != 0 || left_ == 0) return;
        detail::bulk_copy(slots_ + fetch_slot_ * row_bytes_, next_, row_bytes_, &full_[fetch_slot_]);
        fetch_slot_ = fetch_slot_ + 1 == kStages ? 0 : fetch_slot_ + 1;
        next_ += row_bytes_;
        --left_;
    }

  private:
    __device__ __forceinline__ void begin(const void* matrix, const RowShare<int>& rows) {
        if (threadIdx.x != 0) return;
        next_ = static_cast<const char*>(matrix) + int64_t{rows.first} * row_bytes_;
        left_ = rows.last - rows.first;
        fetch_slot_ = 0;
        fetch();
    }

    uint64_t* full_;
    char* slots_;
    uint32_t row_bytes_;
    uint32_t slot_ = 0, parities_ = 0;
    // Of the thread that requests rows.
    const char* next_ = nullptr;
    int left_ = 0;
    uint32_t fetch_slot_ = 0;
};

// The largest of values that every thread of the CTA has, kValues for each row, one row after another.
template <int kValues>
class RowMaxima {
  public:
    // Rows in turn: one is read while the next is written and the one before is cleared.
    static constexpr uint32_t kTurns = 4;
    struct Storage {
        uint32_t bits[kTurns][kValues];
    };

    __device__ static void init(Storage& storage) {
        if (threadIdx.x < kTurns * kValues) storage.bits[0][threadIdx.x] = 0;
    }

    __device__ explicit RowMaxima(Storage& storage) : bits_(detail::keep_shared(storage.bits)) {}

    // Not negative and not NaN; by all lanes of a warp. The CTA then synchronises.
    template <int kValue>
    __device__ __forceinline__ void add(float value) {
        const uint32_t largest = __reduce_max_sync(~0u, __float_as_uint(value));
        if (largest != 0 && threadIdx.x % 32 == 0) {
            uint32_t unused;  // without it the lanes' values would be reduced once more
            asm volatile("atom.shared.max.u32 %0, [%1], %2;"
                         : "=r"(unused)
                         : "r"(detail::shared_address(&bits_[turn_][kValue])), "r"(largest)
                         : "memory");
        }
    }

    // The same before the CTA synchronises; returns the largest value so far, at least the warp's own.
    template <int kValue>
    __device__ __forceinline__ float add_and_look(float value) {
        const uint32_t largest = __reduce_max_sync(~0u, __float_as_uint(value));
        uint32_t before = 0;
        if (threadIdx.x % 32 == 0) before = atomicMax(&bits_[turn_][kValue], largest);
        return __uint_as_float(max(__shfl_sync(~0u, before, 0), largest));
    }

    // Once for every row; the maximum of the last value.
    __device__ __forceinline__ float take() {
        const float value = __uint_as_float(bits_[turn_][kValues - 1]);
        if (threadIdx.x == 0) {
#pragma unroll
            for (int i = 0; i < kValues; ++i) bits_[(turn_ - 1) % kTurns][i] = 0;
        }
        turn_ = (turn_ + 1) % kTurns;
        return value;
    }

  private:
    uint32_t (*bits_)[kValues];
    uint32_t turn_ = 0;
};

}  // namespace moe_jit::cuda

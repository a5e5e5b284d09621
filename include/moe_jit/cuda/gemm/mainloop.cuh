// Consumer mainloop: one warpgroup multiplies its 64-row weight units of a stage by kTokens token rows.
#pragma once

#include <cute/arch/util.hpp>

#include "moe_jit/cuda/gemm/format.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// Shared-memory matrix descriptor of a K-major operand in 128-byte swizzle: 8-row groups 1024 bytes apart.
__device__ __forceinline__ uint64_t operand_descriptor(const void* shared) {
    constexpr uint64_t kSwizzle128 = 1ull << 62;
    constexpr uint64_t kGroupStride = static_cast<uint64_t>(1024 >> 4) << 32;
    constexpr uint64_t kIgnoredLeadingOffset = 1ull << 16;
    const uint64_t address = (cute::cast_smem_ptr_to_uint(shared) & 0x3ffff) >> 4;
    return kSwizzle128 | kGroupStride | kIgnoredLeadingOffset | address;
}

// cp.async writes through the generic proxy; the tensor core reads shared memory through the async proxy.
__device__ __forceinline__ void fence_gathered_tokens() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <class Format, class Tile, int kTokens>
struct Mainloop {
    using Accum = typename Format::Accum;
    using Storage = SharedStorage<Tile>;
    using Ring = RingCursor<Tile::kStages>;
    static constexpr int kUnits = Tile::kUnits;
    static constexpr int kAccums = kTokens / 2;
    using Accums = Accum[kUnits][kAccums];

    // Keeps the compiler from moving register accesses across asynchronous MMAs.
    template <int kCount>
    __device__ __forceinline__ static void fence(Accum (&regs)[kCount][kAccums]) {
#pragma unroll
        for (int u = 0; u < kCount; ++u) {
#pragma unroll
            for (int i = 0; i < kAccums; ++i) cute::warpgroup_fence_operand(regs[u][i]);
        }
    }

    // Issues and commits the MMAs of kCount units of a stage: d = or += weights * tokens^T.
    template <int kCount>
    __device__ __forceinline__ static void issue(Storage& storage, int slot, int first_unit,
                                                 Accum (&d)[kCount][kAccums], bool accumulate) {
        const uint64_t weights =
            operand_descriptor(storage.weights[slot] + first_unit * kUnitRows * kBlockBytes);
        const uint64_t tokens = operand_descriptor(storage.tokens[slot]);
        fence(d);
        cute::warpgroup_arrive();
#pragma unroll
        for (int k = 0; k < kBlockBytes / Format::kMmaBytes; ++k) {
            const int step = k * (Format::kMmaBytes >> 4);
#pragma unroll
            for (int u = 0; u < kCount; ++u) {
                Format::template mma<kTokens>(weights + step + u * (kUnitRows * kBlockBytes >> 4),
                                              tokens + step, d[u], accumulate || k > 0);
            }
        }
        cute::warpgroup_commit_batch();
    }

    __device__ __forceinline__ static void clear(Accums& acc) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
#pragma unroll
            for (int i = 0; i < kAccums; ++i) acc[u][i] = 0;
        }
    }

    __device__ __forceinline__ static void wait_stage(Storage& storage, const Ring& ring) {
        storage.full[ring.slot].wait(ring.phase);
        fence_gathered_tokens();
    }

    // A stage is reused when all CTAs that its weights were multicast to have read it.
    __device__ __forceinline__ static void release(Storage& storage, int slot) {
        if constexpr (Tile::kCluster > 1) {
            const uint32_t lane = threadIdx.x % 32;
            storage.empty[slot].arrive(lane, lane < Tile::kCluster);
        } else {
            if (threadIdx.x % 32 == 0) storage.empty[slot].arrive();
        }
    }

    // Partial sums leave the tensor core after every stage and are added in fp32: one unit while the next one
    // is being multiplied, where registers hold the partial sums of all units.
    static constexpr bool kOverlapped = 2 * kUnits * kAccums <= 192;

    __device__ __forceinline__ static void promoted(Storage& storage, int k_blocks, int first_unit,
                                                    Ring& ring, Accums& acc) {
        constexpr int kInFlight = kOverlapped ? kUnits : 1;
        constexpr int kLast = kInFlight - 1;
        static_assert(kUnits <= 2, "at most one unit in flight behind the one being added");
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            Accum part[kInFlight][1][kAccums];
            wait_stage(storage, ring);
#pragma unroll
            for (int u = 0; u < kInFlight; ++u) issue(storage, ring.slot, first_unit + u, part[u], false);
            if constexpr (kUnits == 2) {
                cute::warpgroup_wait<kLast>();
                fence(part[0]);
                add(acc[0], part[0][0]);
                if constexpr (!kOverlapped) issue(storage, ring.slot, first_unit + 1, part[0], false);
            }
            cute::warpgroup_wait<0>();
            fence(part[kLast]);
            release(storage, ring.slot);
            add(acc[kUnits - 1], part[kLast][0]);
        }
    }

    __device__ __forceinline__ static void add(Accum (&acc)[kAccums], const Accum (&part)[kAccums]) {
#pragma unroll
        for (int i = 0; i < kAccums; ++i) acc[i] += part[i];
    }

    // The tensor core keeps the running sums; one stage stays in flight.
    __device__ __forceinline__ static void direct(Storage& storage, int k_blocks, int first_unit, Ring& ring,
                                                  Accums& acc) {
        int previous = ring.slot;
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            wait_stage(storage, ring);
            issue(storage, ring.slot, first_unit, acc, true);
            cute::warpgroup_wait<1>();
            fence(acc);
            if (kb > 0) release(storage, previous);
            previous = ring.slot;
        }
        cute::warpgroup_wait<0>();
        fence(acc);
        release(storage, previous);
    }

    __device__ __forceinline__ static void run(Storage& storage, int k_blocks, int first_unit, Ring& ring,
                                               Accums& acc) {
        clear(acc);
        if constexpr (Format::kPromote) {
            promoted(storage, k_blocks, first_unit, ring, acc);
        } else {
            direct(storage, k_blocks, first_unit, ring, acc);
        }
    }
};

}  // namespace moe_jit::cuda::gemm

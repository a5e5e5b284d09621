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

    static constexpr int kSteps = kBlockBytes / Format::kMmaBytes;

    // Step k of one k-block of a unit: d = or += weights * tokens^T.
    __device__ __forceinline__ static void multiply(Storage& storage, int slot, int block, int unit, int k,
                                                    Accum (&d)[kAccums], bool accumulate) {
        const uint64_t weights = operand_descriptor(storage.weights[slot] + block * Tile::kWeightBlockBytes +
                                                    unit * kUnitRows * kBlockBytes);
        const uint64_t tokens = operand_descriptor(storage.tokens[slot] + block * Tile::kTokenBlockBytes);
        const int step = k * (Format::kMmaBytes >> 4);
        Format::template mma<kTokens>(weights + step, tokens + step, d, accumulate);
    }

    // Issues and commits the MMAs of one k-block and kCount units.
    template <int kCount>
    __device__ __forceinline__ static void issue(Storage& storage, int slot, int block, int first_unit,
                                                 Accum (&d)[kCount][kAccums], bool accumulate) {
        fence(d);
        cute::warpgroup_arrive();
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
#pragma unroll
            for (int u = 0; u < kCount; ++u) {
                multiply(storage, slot, block, first_unit + u, k, d[u], accumulate || k > 0);
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
        if constexpr (!Tile::kGatherByTma) fence_gathered_tokens();
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

    // Partial sums leave the tensor core after every k-block and are added in fp32: those of one (block,
    // unit) while later ones are being multiplied, where registers hold the partial sums of a whole stage.
    static constexpr int kParts = Tile::kBlocks * kUnits;
    static constexpr bool kOverlapped = (kUnits + kParts) * kAccums <= 192;

    __device__ __forceinline__ static void add(Accum (&acc)[kAccums], const Accum (&part)[kAccums]) {
#pragma unroll
        for (int i = 0; i < kAccums; ++i) acc[i] += part[i];
    }

    template <int kPart = 0>
    __device__ __forceinline__ static void add_in_order(Storage& storage, int slot,
                                                        Accum (&part)[kParts][1][kAccums], Accums& acc) {
        cute::warpgroup_wait<kParts - 1 - kPart>();
        fence(part[kPart]);
        if constexpr (kPart + 1 == kParts) release(storage, slot);
        add(acc[kPart % kUnits], part[kPart][0]);
        if constexpr (kPart + 1 < kParts) add_in_order<kPart + 1>(storage, slot, part, acc);
    }

    // Narrow MMAs that wait for each other's accumulator leave the tensor pipe idle. Where registers allow
    // it, every step of a stage has its own accumulator.
    static constexpr bool kIndependent = kTokens <= 32 && (kUnits + kParts * kSteps) * kAccums <= 192;

    __device__ __forceinline__ static void independent(Storage& storage, int stages, int first_unit,
                                                       Ring& ring, Accums& acc) {
        for (int s = 0; s < stages; ++s, ring.advance()) {
            Accum part[kParts * kSteps][kAccums];
            wait_stage(storage, ring);
            fence(part);
            cute::warpgroup_arrive();
#pragma unroll
            for (int i = 0; i < kParts * kSteps; ++i) {
                multiply(storage, ring.slot, i / (kUnits * kSteps), first_unit + i % kUnits,
                         i / kUnits % kSteps, part[i], false);
            }
            cute::warpgroup_commit_batch();
            cute::warpgroup_wait<0>();
            fence(part);
            release(storage, ring.slot);
#pragma unroll
            for (int i = 0; i < kParts * kSteps; ++i) add(acc[i % kUnits], part[i]);
        }
    }

    __device__ __forceinline__ static void promoted(Storage& storage, int stages, int first_unit, Ring& ring,
                                                    Accums& acc) {
        for (int s = 0; s < stages; ++s, ring.advance()) {
            wait_stage(storage, ring);
            if constexpr (kOverlapped) {
                Accum part[kParts][1][kAccums];
#pragma unroll
                for (int i = 0; i < kParts; ++i) {
                    issue(storage, ring.slot, i / kUnits, first_unit + i % kUnits, part[i], false);
                }
                add_in_order(storage, ring.slot, part, acc);
            } else {
#pragma unroll
                for (int i = 0; i < kParts; ++i) {
                    Accum part[1][kAccums];
                    issue(storage, ring.slot, i / kUnits, first_unit + i % kUnits, part, false);
                    cute::warpgroup_wait<0>();
                    fence(part);
                    if (i + 1 == kParts) release(storage, ring.slot);
                    add(acc[i % kUnits], part[0]);
                }
            }
        }
    }

    // The tensor core keeps the running sums; one stage stays in flight.
    __device__ __forceinline__ static void direct(Storage& storage, int stages, int first_unit, Ring& ring,
                                                  Accums& acc) {
        static_assert(Tile::kBlocks == 1, "one batch of MMAs per stage");
        int previous = ring.slot;
        for (int s = 0; s < stages; ++s, ring.advance()) {
            wait_stage(storage, ring);
            issue(storage, ring.slot, 0, first_unit, acc, true);
            cute::warpgroup_wait<1>();
            fence(acc);
            if (s > 0) release(storage, previous);
            previous = ring.slot;
        }
        cute::warpgroup_wait<0>();
        fence(acc);
        release(storage, previous);
    }

    __device__ __forceinline__ static void run(Storage& storage, int stages, int first_unit, Ring& ring,
                                               Accums& acc) {
        clear(acc);
        if constexpr (Format::kPromote && kIndependent) {
            independent(storage, stages, first_unit, ring, acc);
        } else if constexpr (Format::kPromote) {
            promoted(storage, stages, first_unit, ring, acc);
        } else {
            direct(storage, stages, first_unit, ring, acc);
        }
    }
};

}  // namespace moe_jit::cuda::gemm

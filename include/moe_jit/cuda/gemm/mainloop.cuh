// Consumer mainloop: one warpgroup multiplies its 64 weight rows of a stage by kTokens token rows.
#pragma once

#include <cute/arch/util.hpp>

#include <moe_jit/cuda/gemm/format.cuh>
#include <moe_jit/cuda/gemm/tile.cuh>

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
__device__ __forceinline__ void fence_gathered_tokens() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <class Format, class Tile, int kTokens>
struct Mainloop {
    using Accum = typename Format::Accum;
    using Storage = SharedStorage<Tile>;
    using Ring = RingCursor<Tile::kStages>;
    static constexpr int kAccums = kTokens / 2;

    template <class T>
    __device__ __forceinline__ static void fence_operands(T (&regs)[kAccums]) {
#pragma unroll
        for (int i = 0; i < kAccums; ++i) {
            if constexpr (sizeof(T) == 4) asm volatile("" : "+r"(reinterpret_cast<uint32_t&>(regs[i]))::"memory");
        }
    }

    // Issues and commits the MMAs of one stage: d = or += weights * tokens^T.
    __device__ __forceinline__ static void issue_stage(Storage& storage, int slot, int warpgroup, Accum (&d)[kAccums],
                                                       bool accumulate) {
        const uint64_t weights = operand_descriptor(storage.weights[slot] + warpgroup * 64 * kBlockBytes);
        const uint64_t tokens = operand_descriptor(storage.tokens[slot]);
        fence_gathered_tokens();
        fence_operands(d);
        cute::warpgroup_arrive();
#pragma unroll
        for (int k = 0; k < kBlockBytes / Format::kMmaBytes; ++k) {
            const int step = k * (Format::kMmaBytes >> 4);
            Format::template mma<kTokens>(weights + step, tokens + step, d, accumulate || k > 0);
        }
        cute::warpgroup_commit_batch();
        fence_operands(d);
    }

    __device__ __forceinline__ static void release(Storage& storage, int slot) {
        if (threadIdx.x % 32 == 0) storage.empty[slot].arrive();
    }

    // Partial sums leave the tensor core after every stage and are added in fp32.
    __device__ static void promoted(Storage& storage, int k_blocks, int warpgroup, Ring& ring,
                                    Accum (&acc)[kAccums]) {
#pragma unroll
        for (int i = 0; i < kAccums; ++i) acc[i] = 0;
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            Accum part[kAccums];
            storage.full[ring.slot].wait(ring.phase);
            issue_stage(storage, ring.slot, warpgroup, part, false);
            cute::warpgroup_wait<0>();
            fence_operands(part);
            release(storage, ring.slot);
#pragma unroll
            for (int i = 0; i < kAccums; ++i) acc[i] += part[i];
        }
    }

    // The tensor core keeps the running sum; one stage stays in flight.
    __device__ static void direct(Storage& storage, int k_blocks, int warpgroup, Ring& ring, Accum (&acc)[kAccums]) {
        int previous = -1;
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            storage.full[ring.slot].wait(ring.phase);
            issue_stage(storage, ring.slot, warpgroup, acc, kb > 0);
            cute::warpgroup_wait<1>();
            if (previous >= 0) release(storage, previous);
            previous = ring.slot;
        }
        cute::warpgroup_wait<0>();
        fence_operands(acc);
        release(storage, previous);
    }

    __device__ __forceinline__ static void run(Storage& storage, int k_blocks, int warpgroup, Ring& ring,
                                               Accum (&acc)[kAccums]) {
        if constexpr (Format::kPromote) {
            promoted(storage, k_blocks, warpgroup, ring, acc);
        } else {
            direct(storage, k_blocks, warpgroup, ring, acc);
        }
    }
};

}  // namespace moe_jit::cuda::gemm

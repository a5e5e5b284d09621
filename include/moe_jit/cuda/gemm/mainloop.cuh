// Consumer mainloop: one warpgroup multiplies its 64-row weight units of a stage by kTokens token rows.
#pragma once

#include <algorithm>
#include <cute/arch/util.hpp>
#include <type_traits>

#include "moe_jit/cuda/gemm/format.cuh"
#include "moe_jit/cuda/gemm/pair.cuh"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// cp.async writes through the generic proxy; the tensor core reads shared memory through the async proxy.
__device__ __forceinline__ void fence_gathered_tokens() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Accumulators may be those of a wider tile, kHeldTokens.
template <class Tile, int kTokens, int kHeldTokens = kTokens>
struct Mainloop {
    using Format = typename Tile::Format;
    using Accum = typename Format::Accum;
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    static constexpr int kUnits = Tile::kUnits;
    static constexpr int kAccums = kHeldTokens / 2;
    using Accums = Accum[kUnits][kAccums];
    // What the epilogue gets.
    using Totals = std::conditional_t<Format::kSegmented, float, Accum>[kUnits][kAccums];
    static constexpr bool kSegmented = Tile::kScaled;

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
        const uint64_t weights = Format::Weights::operand(
            storage.weights[slot] + block * Tile::kWeightBlockBytes, unit, k * Format::kMmaBytes);
        const uint64_t tokens = Format::Tokens::operand(storage.tokens[slot] + block * Tile::kTokenBlockBytes,
                                                        0, k * Format::kMmaBytes);
        Format::template mma<kTokens>(weights, tokens, d, accumulate);
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

    __device__ __forceinline__ static void clear(Totals& acc) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
#pragma unroll
            for (int i = 0; i < kAccums; ++i) acc[u][i] = 0;
        }
    }

    __device__ __forceinline__ static void wait_stage(Storage& storage, const Ring& ring) {
        storage.full[ring.slot].wait(ring.phase);
        if constexpr (!Tile::kTokensByTma) fence_gathered_tokens();
    }

    __device__ __forceinline__ static void release(Storage& storage, int slot) {
        if (threadIdx.x % 32 < Tile::kFreeingLanes) storage.empty[slot].arrive();
        if constexpr (Tile::kCtas > 1) arrive_at_peer(storage.empty[slot]);
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
    // it, every step of a stage has its own accumulator; better still, a stage starts before the one before
    // has been added.
    static constexpr int kSums = kParts * kSteps;
    static constexpr bool kIndependent = kTokens <= 32 && (kUnits + kSums) * kAccums <= 192;
    static constexpr bool kPipelined =
        Tile::kFewTokens && kIndependent && (kUnits + 2 * kSums) * kAccums <= 160;

    __device__ __forceinline__ static void start_stage(Storage& storage, const Ring& ring, int first_unit,
                                                       Accum (&part)[kSums][kAccums]) {
        wait_stage(storage, ring);
        fence(part);
        cute::warpgroup_arrive();
#pragma unroll
        for (int i = 0; i < kSums; ++i) {
            multiply(storage, ring.slot, i / (kUnits * kSteps), first_unit + i % kUnits, i / kUnits % kSteps,
                     part[i], false);
        }
        cute::warpgroup_commit_batch();
    }

    // kLater stages have been started since.
    template <int kLater>
    __device__ __forceinline__ static void finish_stage(Storage& storage, int slot,
                                                        Accum (&part)[kSums][kAccums], Accums& acc) {
        cute::warpgroup_wait<kLater>();
        fence(part);
        release(storage, slot);
#pragma unroll
        for (int i = 0; i < kSums; ++i) add(acc[i % kUnits], part[i]);
    }

    __device__ __forceinline__ static void independent(Storage& storage, int stages, int first_unit,
                                                       Ring& ring, Accums& acc) {
        for (int s = 0; s < stages; ++s, ring.advance()) {
            Accum part[kSums][kAccums];
            start_stage(storage, ring, first_unit, part);
            finish_stage<0>(storage, ring.slot, part, acc);
        }
    }

    // Stages come in pairs, so that the registers of their sums have fixed names.
    __device__ __forceinline__ static void pipelined(Storage& storage, int stages, int first_unit, Ring& ring,
                                                     Accums& acc) {
        Accum even[kSums][kAccums], odd[kSums][kAccums];
        int slot = ring.slot;
        const auto start = [&](auto& part) {
            start_stage(storage, ring, first_unit, part);
            slot = ring.slot;
            ring.advance();
        };
        start(even);
        for (stages -= 1; stages >= 2; stages -= 2) {
            const int first = slot;
            start(odd);
            finish_stage<1>(storage, first, even, acc);
            const int second = slot;
            start(even);
            finish_stage<1>(storage, second, odd, acc);
        }
        if (stages > 0) {
            const int first = slot;
            start(odd);
            finish_stage<1>(storage, first, even, acc);
            finish_stage<0>(storage, slot, odd, acc);
        } else {
            finish_stage<0>(storage, slot, even, acc);
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
        if (!Format::kGroupedDepth || stages > 0) release(storage, previous);
    }

    // Weights in registers: those of one item, kItemSteps steps of all units, are loaded while the MMAs of
    // the one before run. Every item is waited for: ptxas lets no MMA that may be in flight share its operand
    // registers with another one, be it of another width. The other warpgroup fills the gaps.
    static constexpr int kStageSteps = Tile::kBlocks * kSteps;
    static constexpr int kHeldSums = kUnits * kAccums * (kSegmented ? 2 : 1);
    static constexpr int kItemSteps = std::min(kHeldSums <= 32    ? 4
                                               : kHeldSums <= 128 ? 2
                                                                  : 1,
                                               kStageSteps / 2);
    static constexpr int kItems = kStageSteps / kItemSteps;
    using Fragments = uint32_t[kItemSteps][kUnits][4];

    __device__ __forceinline__ static void fence(Fragments& fragments) {
#pragma unroll
        for (int i = 0; i < kItemSteps * kUnits * 4; ++i) {
            cute::warpgroup_fence_operand(fragments[i / (kUnits * 4)][i / 4 % kUnits][i % 4]);
        }
    }

    template <class Loader>
    __device__ __forceinline__ static void load_item(Storage& storage, int slot, int item, Loader& loader,
                                                     Fragments& fragments) {
#pragma unroll
        for (int i = 0; i < kItemSteps; ++i) {
            const int step = item * kItemSteps + i;
            loader.load(storage.weights[slot] + step / kSteps * Tile::kBlockStep, step, fragments[i]);
        }
    }

    // Adds an item to `acc`, or starts new sums with it.
    __device__ __forceinline__ static void issue_item(Storage& storage, int slot, int item,
                                                      Fragments& fragments, Accums& acc, bool accumulate) {
        fence(fragments);
        fence(acc);
        cute::warpgroup_arrive();
#pragma unroll
        for (int i = 0; i < kItemSteps; ++i) {
            const int step = item * kItemSteps + i;
            const uint64_t tokens =
                operand_descriptor(storage.tokens[slot] + step / kSteps * Tile::kTokenBlockBytes) +
                step % kSteps * (Format::kMmaBytes >> 4);
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
                Format::template mma<kTokens>(fragments[i][u], tokens, acc[u], accumulate || i > 0);
            }
        }
        cute::warpgroup_commit_batch();
    }

    // The scales of an item that ends a segment, while its MMAs run.
    template <class Loader>
    __device__ __forceinline__ static void read_scales(Storage& storage, int slot, int item, Loader& loader) {
        constexpr int kScaleItems = Format::kScaleSteps / kItemSteps;
        static_assert(Format::kScaleSteps % kItemSteps == 0, "scales change with items");
        const int segment = item / kScaleItems;
        if ((item + 1) % kScaleItems == 0) loader.read_scales(storage.scales.row[slot][segment], segment);
    }

    // Adds item after item to the sums of its segment, one of kSegments in a stage, which starts them anew;
    // kSegments 0: to the sums as they are. ended(item) is called when the MMAs of an item have finished.
    template <int kSegments, class Loader, class Ended>
    __device__ __forceinline__ static void from_registers(Storage& storage, Loader& loader, int stages,
                                                          Ring& ring, Accums* sums, Ended ended) {
        static_assert(kItems % 2 == 0, "items come in pairs, so that their registers have fixed names");
        constexpr int kSegmentItems = kItems / std::max(kSegments, 1);
        static_assert(kItems % kSegmentItems == 0, "segments are of whole items");
        Fragments fragments[2];
        wait_stage(storage, ring);
        load_item(storage, ring.slot, 0, loader, fragments[0]);
        for (int s = 0; s < stages; ++s) {
            // Known to be uniform, descriptors are computed once for a warp.
            const int slot = __shfl_sync(0xffffffffu, ring.slot, 0);
            ring.advance();
#pragma unroll
            for (int item = 0; item < kItems; ++item) {
                Accums& acc = sums[item / kSegmentItems];
                const bool fresh = kSegments > 0 && item % kSegmentItems == 0;
                issue_item(storage, slot, item, fragments[item % 2], acc, !fresh);
                loader.observe(fragments[item % 2]);
                if constexpr (Tile::kScaled) read_scales(storage, slot, item, loader);
                if (item + 1 < kItems) {
                    load_item(storage, slot, item + 1, loader, fragments[(item + 1) % 2]);
                } else if (s + 1 < stages) {
                    wait_stage(storage, ring);
                    load_item(storage, ring.slot, 0, loader, fragments[0]);
                }
                cute::warpgroup_wait<0>();
                fence(fragments[item % 2]);
                fence(acc);
                ended(item);
            }
            release(storage, slot);
        }
    }

    // The sums of every segment of K leave the tensor core; the last one may end behind K.
    template <class Loader>
    __device__ __forceinline__ static void segmented(Storage& storage, Loader& loader, int stages, Ring& ring,
                                                     Totals& acc) {
        constexpr int kBlockItems = kSteps / kItemSteps;
        static_assert(kSteps % kItemSteps == 0, "items end with k-blocks");
        Accums part;
        int blocks_left = loader.segment_blocks();
        loader.begin_segment(part);
        from_registers<0>(storage, loader, stages, ring, &part, [&](int item) {
            if ((item + 1) % kBlockItems != 0 || --blocks_left > 0) return;
            loader.promote(acc, part);
            loader.begin_segment(part);
            blocks_left = loader.segment_blocks();
        });
        if (blocks_left != loader.segment_blocks()) loader.promote(acc, part);
    }

    // The same for segments that end with items. They are added at the end of a stage: ptxas would move what
    // the next item needs behind the wait, to fill the latency of additions.
    template <class Loader>
    __device__ __forceinline__ static void weighed(Storage& storage, Loader& loader, int stages, Ring& ring,
                                                   Totals& acc) {
        constexpr int kSegments = Tile::kStageSegments;
        Accums part[kSegments];
        from_registers<kSegments>(storage, loader, stages, ring, part, [&](int item) {
            if (item + 1 < kItems) return;
#pragma unroll
            for (int i = 0; i < kSegments; ++i) loader.promote(acc, part[i], i);
        });
    }

    template <class Params>
    __device__ __forceinline__ static void run(Storage& storage, const Params& params,
                                               const WorkOf<Tile>& info, int first_unit, Ring& ring,
                                               Totals& acc) {
        const int stages = num_stages<Tile>(params.phase[info.phase], info);
        clear(acc);
        if constexpr (Format::Weights::kInRegisters) {
            const int column = first_unit * kUnitRows;
            typename Format::template Loader<kUnits, kStageSteps, Tile::kScaled> loader(
                params.format, info, info.row_tile * Tile::kRows + column, column,
                threadIdx.x % kWarpgroupThreads);
            if constexpr (Format::kSegmented) {
                segmented(storage, loader, stages, ring, acc);
            } else if constexpr (Tile::kScaled) {
                weighed(storage, loader, stages, ring, acc);
            } else {
                from_registers<0>(storage, loader, stages, ring, &acc, [](int) {});
            }
            loader.finish(acc);
        } else if constexpr (Format::kPromote && kPipelined) {
            pipelined(storage, stages, first_unit, ring, acc);
        } else if constexpr (Format::kPromote && kIndependent) {
            independent(storage, stages, first_unit, ring, acc);
        } else if constexpr (Format::kPromote) {
            promoted(storage, stages, first_unit, ring, acc);
        } else {
            direct(storage, stages, first_unit, ring, acc);
        }
    }
};

}  // namespace moe_jit::cuda::gemm

// Persistent grouped GEMM over experts, warp-specialised: one producer warpgroup (a weight warp and three
// token warps) fills a ring of shared-memory stages, two math warpgroups empty it. A launch runs one or more
// phases; rows that one phase stores are the tokens of the next.
#pragma once

#include <cutlass/arch/reg_reconfig.h>

#include <type_traits>

#include "moe_jit/cuda/gemm/epilogue.cuh"
#include "moe_jit/cuda/gemm/mainloop.cuh"
#include "moe_jit/cuda/gemm/pair.cuh"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/token_producer.cuh"
#include "moe_jit/cuda/gemm/weight_producer.cuh"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::gemm {

// The same value, computed anew: what derives from it does not stay in registers from one use to the next.
__device__ __forceinline__ uint32_t rematerialised(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

template <class... Epilogues>
struct EpilogueParams;

template <>
struct EpilogueParams<> {};

template <class Head, class... Tail>
struct EpilogueParams<Head, Tail...> {
    typename Head::Params head;
    EpilogueParams<Tail...> tail;
};

template <class Tile_, class... Epilogues>
struct GroupedGemm {
    using Tile = Tile_;
    using Format = typename Tile::Format;
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    static_assert(sizeof(Storage) <= kMaxSharedBytes, "shared memory");

    struct Params : KernelParams<sizeof...(Epilogues)> {
        EpilogueParams<Epilogues...> epilogue;
        typename Format::Params format;
    };

    using TokenSource = Gather<Tile, Params>;
    using EpilogueState = std::common_type_t<typename Epilogues::State...>;

    // Every width has an epilogue, or the widest one serves all.
    using EpilogueWidths = std::conditional_t<Tile::kOneEpilogue, std::integer_sequence<int, Tile::kTokens>,
                                              typename Tile::Widths>;
    template <int kTokens>
    using MmaWidths =
        std::conditional_t<Tile::kOneEpilogue, typename Tile::Widths, std::integer_sequence<int, kTokens>>;

    // Calls f(Epilogue{}, its parameters) for the epilogue of `phase`.
    template <class F>
    __device__ __forceinline__ static void visit_epilogue(const Params& params, int phase, F f) {
        visit<F, Epilogues...>(params.epilogue, phase, f);
    }

    // Warpgroups that work on alternate tiles enter the ring in tile order: a stage's barrier tells only the
    // parity of its pass, so nobody may wait for a pass that is not the next one.
    class Turns {
      public:
        __device__ explicit Turns(Storage& storage, int group)
            : storage_(storage), group_(group), phase_(group == 0) {}
        __device__ __forceinline__ void enter() {
            if constexpr (Tile::kTurns > 1) storage_.turn[group_].wait(phase_);
            phase_ ^= 1;
        }
        __device__ __forceinline__ void leave() {
            if constexpr (Tile::kTurns > 1) {
                if (threadIdx.x % 32 == 0) storage_.turn[(group_ + 1) % Tile::kTurns].arrive();
            }
        }

      private:
        Storage& storage_;
        int group_;
        uint32_t phase_;
    };

    // Adds products up in the narrowest of the widths that holds the tile.
    template <int kHeldTokens, int kWidth, int... kWider, class Accums>
    __device__ __forceinline__ static void multiply(std::integer_sequence<int, kWidth, kWider...>,
                                                    Storage& storage, const Params& params,
                                                    const WorkOf<Tile>& info, int first_unit, Ring& ring,
                                                    Accums& acc) {
        if constexpr (sizeof...(kWider) > 0) {
            if (info.tokens > kWidth) {
                return multiply<kHeldTokens>(std::integer_sequence<int, kWider...>{}, storage, params, info,
                                             first_unit, ring, acc);
            }
        }
        Mainloop<Tile, kWidth, kHeldTokens>::run(storage, params, info, first_unit, ring, acc);
    }

    template <int kTokens>
    __device__ static void compute_tile(Storage& storage, const Params& params, const WorkOf<Tile>& info,
                                        int warpgroup, Ring& ring, Turns& turns) {
        using Loop = Mainloop<Tile, kTokens>;
        const int first_unit = warpgroup % Tile::kTileWarpgroups * Tile::kUnits;
        const auto context = [&] {
            return EpilogueContext{info,
                                   part_of(info),
                                   storage.staging[warpgroup],
                                   info.row_tile * (Tile::kRows / kUnitRows) + first_unit,
                                   warpgroup,
                                   static_cast<int>(rematerialised(threadIdx.x) % kWarpgroupThreads)};
        };
        EpilogueState state;
        const auto load = [&](auto epilogue, const auto& p) { state = epilogue.load(p, context()); };
        // What the epilogue reads arrives during the mainloop if there are registers for it.
        constexpr bool kEarly = Tile::kUnits * Loop::kAccums + EpilogueState::kRegisters <= 168;
        typename Loop::Totals acc;
        if constexpr (kEarly) visit_epilogue(params, info.phase, load);
        turns.enter();
        multiply<kTokens>(MmaWidths<kTokens>{}, storage, params, info, first_unit, ring, acc);
        turns.leave();
        if constexpr (!kEarly) visit_epilogue(params, info.phase, load);
        const EpilogueContext ctx = context();
        visit_epilogue(params, info.phase, [&](auto epilogue, const auto& p) {
            decltype(epilogue)::template store<kTokens>(p, ctx, state, acc);
        });
        // The last store ended with a warpgroup barrier, so one release publishes the rows of all its
        // threads.
        if (info.phase + 1 < Params::kPhases && ctx.thread == 0 && info.tokens > 0 &&
            !awaits_values<Tile>(params.schedule)) {
            signal_ready(params.schedule.ready + info.token_tile);
        }
    }

    // Computes with the narrowest epilogue that holds the tile.
    template <int kWidth, int... kWider>
    __device__ __forceinline__ static void dispatch_width(std::integer_sequence<int, kWidth, kWider...>,
                                                          Storage& storage, const Params& params,
                                                          const WorkOf<Tile>& info, int warpgroup, Ring& ring,
                                                          Turns& turns) {
        if constexpr (sizeof...(kWider) > 0) {
            if (info.tokens > kWidth) {
                return dispatch_width(std::integer_sequence<int, kWider...>{}, storage, params, info,
                                      warpgroup, ring, turns);
            }
        }
        compute_tile<kWidth>(storage, params, info, warpgroup, ring, turns);
    }

    // Every math warpgroup reads all announcements and works on those of its turn.
    __device__ static void consume(Storage& storage, const Params& params, int warpgroup) {
        const int group = warpgroup / Tile::kTileWarpgroups;
        Turns turns(storage, group);
        Ring ring = stage_ring<Tile>(params.schedule);
        RingCursor<kTileSlots> slots;
        for (int turn = group;; turn = turn == 0 ? Tile::kTurns - 1 : turn - 1) {
            const auto info = next_announced<Tile>(storage, slots);
            if (info.phase == TileInfo::kEnd) return;
            if (Tile::kTurns == 1 || turn == 0) {
                dispatch_width(EpilogueWidths{}, storage, params, info, warpgroup, ring, turns);
            } else {
                ring.advance(num_stages<Tile>(params.phase[info.phase], info));
            }
        }
    }

    __device__ static void produce(Storage& storage, const Params& params, int first_claim) {
        if (threadIdx.x < 32) {
            WeightProducer<Tile, Params>::run(storage, params, first_claim);
        } else if (threadIdx.x < 32 + 32 * TokenSource::kWarps) {
            TokenProducer<Tile, Params>::run(storage, params, threadIdx.x - 32);
        }
    }

    __device__ static void init_barriers(Storage& storage) {
        for (int s = 0; s < Tile::kStages; ++s) {
            storage.full[s].init(1 + TokenSource::kArrivals);
            storage.empty[s].init(Tile::kFreeingLanes * Tile::kCtas * Tile::kTileWarpgroups * 4);
        }
        for (int s = 0; s < kTileSlots; ++s) {
            storage.tile_full[s].init(1);
            storage.tile_empty[s].init(32 * (TokenSource::kWarps + kMathWarps));
        }
        if constexpr (Tile::kCtas > 1) {
            for (auto& full : storage.passed.full) full.init(1);
        }
        for (auto& turn : storage.turn) turn.init(Tile::kTileWarpgroups * 4);
        cutlass::arch::fence_barrier_init();
    }

  private:
    template <class F, class Head, class... Tail>
    __device__ __forceinline__ static void visit(const EpilogueParams<Head, Tail...>& params, int phase,
                                                 F& f) {
        if constexpr (sizeof...(Tail) > 0) {
            if (phase > 0) return visit<F, Tail...>(params.tail, phase - 1, f);
        }
        f(Head{}, params.head);
    }
};

template <class Gemm>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ typename Gemm::Params params) {
    // The register pool of a 168-register launch, redistributed: 56 + 2 * 224 <= 3 * 168.
    constexpr uint32_t kProducerRegisters = 56;
    constexpr uint32_t kMathRegisters = 224;
    extern __shared__ __align__(1024) uint8_t shared[];
    auto& storage = *reinterpret_cast<typename Gemm::Storage*>(shared);

    if (threadIdx.x == 0) {
        for (const CUtensorMap& map : params.weights)
            cute::prefetch_tma_descriptor(reinterpret_cast<const cute::TmaDescriptor*>(&map));
        WeightProducer<typename Gemm::Tile, typename Gemm::Params>::prefetch(params);
        Gemm::init_barriers(storage);
    }
    // With a list, routing has zeroed the counters before this kernel could start, and may still run.
    const bool listed = is_listed<typename Gemm::Tile>(params.schedule);
    if (!listed) {
        let_dependents_start();
        wait_for_predecessors();
    }
    // The first claim travels together with the schedule.
    const bool claims = threadIdx.x == 0 && is_leader<typename Gemm::Tile>();
    const int first_claim = claims ? atomicAdd(params.schedule.next_tile, 1) : 0;
    if (!listed) load_schedule(storage, params.schedule);
    sync_ctas<typename Gemm::Tile>();

    const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / kWarpgroupThreads, 0);
    if (warpgroup == 0) {
        cutlass::arch::warpgroup_reg_dealloc<kProducerRegisters>();
        Gemm::produce(storage, params, first_claim);
    } else {
        cutlass::arch::warpgroup_reg_alloc<kMathRegisters>();
        if (listed) {
            wait_for_predecessors();  // for what epilogues read, and so that we do not end before it
            let_dependents_start();
        }
        Gemm::consume(storage, params, warpgroup - 1);
    }
    // The peer may still signal barriers of this CTA.
    if constexpr (Gemm::Tile::kCtas > 1) sync_ctas<typename Gemm::Tile>();
}

template <class Gemm>
cudaError_t launch_gemm(const typename Gemm::Params& params, int num_sms, cudaStream_t stream, bool pdl) {
    const auto kernel = grouped_gemm_kernel<Gemm>;
    constexpr int kSharedBytes = sizeof(typename Gemm::Storage);
    if (const cudaError_t error =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
        error != cudaSuccess) {
        return error;
    }
    constexpr int kCtas = Gemm::Tile::kCtas;
    return cuda::launch<kCtas>(kernel, dim3(num_sms / kCtas * kCtas), dim3(kThreads), kSharedBytes, stream,
                               pdl, params);
}

}  // namespace moe_jit::cuda::gemm

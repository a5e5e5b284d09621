// Routing of few tokens, one warp each. The expert GEMMs start while it runs and wait for its list of rows;
// what only epilogues and finalize read follows the list.
#pragma once

#include <cstring>

#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/route/row_index.cuh"
#include "moe_jit/cuda/route/topk.cuh"

namespace moe_jit::cuda::route {

constexpr int kFewThreads = 32 * (kListedTokens + 1);
constexpr int kFewChosenInRegisters = 512;

// Of one token, between selection and weight.
template <class Policy, int kMaxExperts>
struct RoutedToken {
    Selection selection{};
    uint16_t weight = 0;

    __device__ __forceinline__ void select(const RouteArgs& args, int token, int lane, uint32_t* scratch) {
        if constexpr (!Policy::kFromLogits) {
            const Choice choice = read_choice(args, token, lane);
            selection.expert = choice.expert;
            weight = choice.weight;
        } else {
            selection =
                select_experts<Policy, kMaxExperts, kFewChosenInRegisters>(args, token, lane, scratch);
        }
    }

    __device__ __forceinline__ void store(const RouteArgs& args, int token, int lane) {
        if constexpr (Policy::kFromLogits) {
            weight = selected_weight<Policy>(args, token, lane, selection.expert, selection.stats);
        }
        if (lane >= args.top_k) return;
        const int pair = token * args.top_k + lane;
        args.topk_weights[pair] = weight;
        if (args.replay != nullptr) args.replay[pair] = static_cast<int16_t>(selection.expert);
    }
};

// The chosen local experts of all tokens, eight to a vector; a token's last vector is filled up.
struct ChosenExperts {
    static constexpr unsigned kNone = 0xffff;
    static constexpr int kVector = 8;

    alignas(16) uint16_t expert[kListedTokens][kMaxTopK];

    __device__ __forceinline__ void set(int token, int lane, int top_k, unsigned local) {
        if (lane < (top_k + kVector - 1) / kVector * kVector) {
            expert[token][lane] = static_cast<uint16_t>(local);
        }
    }

    struct Place {
        int before = 0;       // rows of smaller experts
        int rows = 0;         // of all experts
        uint32_t tokens = 0;  // that chose the same expert
    };

    __device__ __forceinline__ Place place(unsigned own, int num_tokens, int top_k) const {
        Place place;
#pragma unroll 1
        for (int token = 0; token < num_tokens; ++token) {
#pragma unroll 1
            for (int rank = 0; rank < top_k; rank += kVector) {
                const uint4 v = *reinterpret_cast<const uint4*>(&expert[token][rank]);
                const uint32_t words[4] = {v.x, v.y, v.z, v.w};
                uint32_t same = 0;
#pragma unroll
                for (int i = 0; i < kVector; ++i) {
                    const unsigned other = i % 2 ? words[i / 2] >> 16 : words[i / 2] & 0xffff;
                    place.before += other < own;
                    place.rows += other != kNone;
                    same |= other == own;
                }
                place.tokens |= same << token;
            }
        }
        return place;
    }
};

__device__ __forceinline__ void write_word(ListedRow* at, const ListedRow& word) {
    unsigned long long bits;
    memcpy(&bits, &word, sizeof(bits));
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(bits) : "memory");
}

// Enters a pair into the list and the indices.
__device__ __forceinline__ void enter(const RouteArgs& args, const ChosenExperts::Place& place,
                                      unsigned local, int token, int rank) {
    const bool is_local = local != ChosenExperts::kNone;
    const int pair = token * args.top_k + rank;
    const uint32_t earlier = place.tokens & ((1u << token) - 1);
    const int row = is_local ? place.before + __popc(earlier) : -1;
    const auto rows = static_cast<uint16_t>(place.rows + 1);
    if (is_local) {
        const uint32_t tokens = earlier == 0 ? place.tokens : 0;
        write_word(args.list + row, {static_cast<uint16_t>(local), static_cast<uint16_t>(row),
                                     static_cast<uint16_t>(tokens), rows});
        args.row_to_pair[row] = pair;
    } else if (pair == 0 && place.rows == 0) {
        write_word(args.list, {0, 0, 0, rows});
    }
    args.pair_to_row[pair] = row;
}

// The GEMMs look at these rows only once this kernel has ended.
__device__ __forceinline__ void mark_unwritten(const RouteArgs& args) {
    for (int64_t i = threadIdx.x; i < args.awaited_bytes / 16; i += kFewThreads) {
        args.awaited[i] = make_uint4(kUnwritten, kUnwritten, kUnwritten, kUnwritten);
    }
}

template <class Policy, int kMaxExperts>
__global__ void __launch_bounds__(kFewThreads) route_few_tokens(const __grid_constant__ RouteArgs args) {
    __shared__ ChosenExperts chosen;
    extern __shared__ uint32_t scratch[];
    const int lane = threadIdx.x % 32, token = threadIdx.x / 32;
    const bool routes = token < args.num_tokens;
    wait_for_predecessors();
    RoutedToken<Policy, kMaxExperts> routed;
    unsigned local = ChosenExperts::kNone;
    if (routes) {
        int words = 0;
        if constexpr (Policy::kFromLogits) words = scratch_words<kMaxExperts>(num_groups<Policy>(args));
        routed.select(args, token, lane, scratch + token * words);
        const int index = lane < args.top_k ? local_expert(args, routed.selection.expert) : -1;
        if (index >= 0) local = index;
        chosen.set(token, lane, args.top_k, local);
    } else if (token == kListedTokens) {
        // What the GEMMs poll and count with is zero before any of their CTAs can start.
        for (int i = lane; i < args.num_counters; i += 32) args.counters[i] = 0;
        __threadfence();
        __syncwarp();
        let_dependents_start();
    }
    __syncthreads();
    if (routes) {
        const auto place = chosen.place(local, args.num_tokens, args.top_k);
        if (lane < args.top_k) enter(args, place, local, token, lane);
        routed.store(args, token, lane);
    }
    mark_unwritten(args);
}

}  // namespace moe_jit::cuda::route

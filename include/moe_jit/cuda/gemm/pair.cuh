// Two CTAs of a cluster that work on neighbouring tiles. While both tiles have the same weight rows, each CTA
// loads half of them for both: a stage is filled again once the consumers of both have released it, so that
// the rings of a pair move in step. One of the two claims, and tells the other.
#pragma once

#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/util.hpp>

#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

template <class Tile>
__device__ __forceinline__ int cluster_rank() {
    return Tile::kCtas > 1 ? static_cast<int>(cute::block_rank_in_cluster()) : 0;
}

template <class Tile>
__device__ __forceinline__ bool is_leader() {
    return cluster_rank<Tile>() == 0;
}

// A barrier of all threads that share tiles.
template <class Tile>
__device__ __forceinline__ void sync_ctas() {
    if constexpr (Tile::kCtas > 1) {
        asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
    } else {
        __syncthreads();
    }
}

// Lane 0 of a warp arrives at the peer's barrier in the same place.
__device__ __forceinline__ void arrive_at_peer(const cutlass::arch::ClusterBarrier& barrier) {
    barrier.arrive(cute::block_rank_in_cluster() ^ 1, threadIdx.x % 32 == 0);
}

// Claims of the leader, as a CTA gets to know them: by a store that completes a barrier of its.
template <class Tile>
class PairClaims {
  public:
    __device__ explicit PairClaims(SharedStorage<Tile>& storage) : storage_(storage) {}

    // The pair's next claim, given the leader's; one thread of each CTA takes part.
    __device__ __forceinline__ int share(int claim) {
        if constexpr (Tile::kCtas > 1) {
            auto& passed = storage_.passed;
            auto& full = passed.full[at_.slot];
            if (is_leader<Tile>()) {
                send(claim, &passed.claim[at_.slot], &full);
            } else {
                full.arrive_and_expect_tx(sizeof(int));
                full.wait(at_.phase);
                claim = *static_cast<volatile int*>(&passed.claim[at_.slot]);
            }
            at_.advance();
        }
        return claim;
    }

  private:
    __device__ __forceinline__ static uint32_t peer_address(const void* shared) {
        uint32_t address;
        asm volatile("mapa.shared::cluster.u32 %0, %1, 1;"
                     : "=r"(address)
                     : "r"(cute::cast_smem_ptr_to_uint(shared)));
        return address;
    }

    __device__ __forceinline__ static void send(int claim, const int* slot, const void* barrier) {
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.s32 [%0], %1, [%2];" ::"r"(
                         peer_address(slot)),
                     "r"(claim), "r"(peer_address(barrier))
                     : "memory");
    }

    SharedStorage<Tile>& storage_;
    RingCursor<kPassedClaims> at_;
};

}  // namespace moe_jit::cuda::gemm

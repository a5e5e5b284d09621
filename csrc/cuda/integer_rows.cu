#include "moe_jit/cuda/integer_rows.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads)
    unpack_int4(const uint32_t* x, int64_t rows, int64_t words, int64_t pitch, int8_t* out) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * words; i += step) {
        const uint32_t word = x[i / words * pitch + i % words];
        // Bytes of the even and of the odd elements, sign-extended: (nibble ^ 8) - 8, without borrows.
        const uint32_t even = word & 0x0f0f0f0fu, odd = word >> 4 & 0x0f0f0f0fu;
        const uint32_t low = __vsub4(even ^ 0x08080808u, 0x08080808u);
        const uint32_t high = __vsub4(odd ^ 0x08080808u, 0x08080808u);
        reinterpret_cast<uint2*>(out)[i] = {__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362)};
    }
}

__global__ void __launch_bounds__(kThreads)
    order_neighbours(const uint4* x, int64_t rows, int64_t pieces, int64_t pitch, uint4* out) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * pieces; i += step) {
        const uint4* piece = x + i / pieces * pitch + i % pieces * 2;
        const uint4 a = piece[0], b = piece[1];
        out[2 * i] = make_uint4(a.x, a.z, b.x, b.z);
        out[2 * i + 1] = make_uint4(a.y, a.w, b.y, b.w);
    }
}

// A thread for each 32 elements.
__global__ void __launch_bounds__(kThreads)
    order_distant_pairs(const uint4* x, int64_t rows, int64_t pieces, int64_t pitch, uint4* out) {
    let_dependents_start();
    wait_for_predecessors();
    constexpr uint32_t kFirsts = 0x5410, kSeconds = 0x7632;  // of two pairs
    const int64_t step = int64_t{gridDim.x} * kThreads;
    for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows * pieces; i += step) {
        const uint4* piece = x + i / pieces * pitch + i % pieces * 4;
        const uint4 a = piece[0], b = piece[1], c = piece[2], d = piece[3];
        const auto pairs = [](const uint4& v, int j) {
            return __byte_perm(j < 2 ? v.x : v.y, j < 2 ? v.z : v.w, j % 2 == 0 ? kFirsts : kSeconds);
        };
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            out[4 * i + j] = make_uint4(pairs(a, j), pairs(b, j), pairs(c, j), pairs(d, j));
        }
    }
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    sum_rows(const int8_t* x, int64_t rows, int64_t k, int64_t pitch, int32_t* sums) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
    if (row >= rows) return;
    int sum = 0;
    for (int64_t i = threadIdx.x % 32; i < k; i += 32) sum += x[row * pitch + i];
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (threadIdx.x % 32 == 0) sums[row] = sum;
}

unsigned blocks_for(int64_t items) {
    constexpr int64_t kMaxBlocks = 4096;
    const int64_t blocks = (items + kThreads - 1) / kThreads;
    return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace

cudaError_t launch_order_pairs(const void* x, int64_t rows, int64_t k, int64_t pitch_bytes, int weight_bits,
                               void* out, cudaStream_t stream) {
    const auto kernel = weight_bits == 4 ? order_distant_pairs : order_neighbours;
    const int64_t pieces = k * weight_bits / 128;
    return launch(kernel, dim3(blocks_for(rows * pieces)), dim3(kThreads), 0, stream, true,
                  static_cast<const uint4*>(x), rows, pieces, pitch_bytes / 16, static_cast<uint4*>(out));
}

cudaError_t launch_unpack_int4(const uint32_t* x, int64_t rows, int64_t k, int64_t pitch_words, int8_t* out,
                               cudaStream_t stream) {
    return launch(unpack_int4, dim3(blocks_for(rows * k / 8)), dim3(kThreads), 0, stream, true, x, rows,
                  k / 8, pitch_words, out);
}

cudaError_t launch_row_sums(const int8_t* x, int64_t rows, int64_t k, int64_t pitch, int32_t* sums,
                            cudaStream_t stream) {
    return launch(sum_rows, dim3((rows + kWarps - 1) / kWarps), dim3(kThreads), 0, stream, true, x, rows, k,
                  pitch, sums);
}

}  // namespace moe_jit::cuda

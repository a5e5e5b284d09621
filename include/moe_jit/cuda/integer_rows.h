// What products with integer weights need of their activations before the product itself.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace moe_jit::cuda {

// int4 rows of k elements, eight to a word, as int8.
cudaError_t launch_unpack_int4(const uint32_t* x, int64_t rows, int64_t k, int64_t pitch_words, int8_t* out,
                               cudaStream_t stream);

// The sum of each int8 row.
cudaError_t launch_row_sums(const int8_t* x, int64_t rows, int64_t k, int64_t pitch, int32_t* sums,
                            cudaStream_t stream);

// 16-bit rows of k elements in the order in which a thread of the tensor core then multiplies 32 bits of a
// column of weights. Rows are 16-byte aligned; k is a multiple of 128 / weight_bits, and so many elements are
// ordered at a time. 8 bits: pairs 0, 2, 4, 6, 1, 3, 5, 7 of sixteen elements. 4 bits: elements 8i + j and
// 8i + j + 4 are pair 4j + i of 32 elements.
cudaError_t launch_order_pairs(const void* x, int64_t rows, int64_t k, int64_t pitch_bytes, int weight_bits,
                               void* out, cudaStream_t stream);

}  // namespace moe_jit::cuda

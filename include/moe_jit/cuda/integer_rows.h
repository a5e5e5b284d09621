// What some integer products need of their activations before the product itself.
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

}  // namespace moe_jit::cuda

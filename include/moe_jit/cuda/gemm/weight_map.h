// Tensor maps over weights. Every map has five dimensions so that one TMA
// instruction serves all layouts.
//
// Matrices [experts, rows, k_bytes]: K bytes, two ways of walking rows inside a block, row block, expert.
// Rows arrive in shared memory in the order the epilogue wants:
//   plain rows        row, row + 1, ...
//   gate/up halves    8 rows of the first half, then the same 8 rows of the second half, ...
//   pairs             the even rows of a block of 16, then the odd ones
//   FlashInfer's 32-row shuffle undone: position 8 * (r % 4) + r / 4 of a block holds row r
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace moe_jit::cuda::gemm {

enum class RowOrder { kPlain, kHalves, kPairs, kShuffled };

struct WeightMatrix {
    const void* data;
    int64_t experts;
    int64_t rows;
    int64_t k_bytes;
    RowOrder order;
    int64_t expert_bytes = 0;  // from one expert to the next; 0: all rows
};

inline int rows_per_block(RowOrder order) {
    return order == RowOrder::kPlain ? 8 : order == RowOrder::kShuffled ? 32 : 16;
}

// The driver's encoder, reached through the runtime so that modules need no libcuda at link time.
inline cudaError_t tensor_map_encoder(decltype(&cuTensorMapEncodeTiled)* encode) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
    if (error != cudaSuccess) return error;
    if (found != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
    *encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
    return cudaSuccess;
}

inline CUtensorMapSwizzle swizzle_of(cuuint32_t row_bytes) {
    return row_bytes == 32   ? CU_TENSOR_MAP_SWIZZLE_32B
           : row_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                             : CU_TENSOR_MAP_SWIZZLE_128B;
}

// The box's rows, box[0] bytes, are swizzled over their width.
inline cudaError_t encode_map(CUtensorMap* map, const void* data, cuuint32_t rank, const cuuint64_t* dim,
                              const cuuint64_t* stride, const cuuint32_t* box) {
    static decltype(&cuTensorMapEncodeTiled) encode = nullptr;
    if (encode == nullptr) {
        if (const cudaError_t error = tensor_map_encoder(&encode); error != cudaSuccess) return error;
    }
    const cuuint32_t element_strides[5] = {1, 1, 1, 1, 1};
    // 256-byte promotion costs 3-5 % when streaming large matrices from HBM; 128 bytes is one box row.
    const CUresult result =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, rank, const_cast<void*>(data), dim, stride, box,
               element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of(box[0]),
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

constexpr cuuint32_t kMapBlockBytes = 128;

inline cudaError_t encode_weight_map(CUtensorMap* map, const WeightMatrix& w, int box_rows,
                                     cuuint32_t box_bytes = kMapBlockBytes) {
    struct Walk {
        cuuint64_t dim[5];
        cuuint64_t stride[4];
        cuuint32_t box[5];
    };
    const auto blocks = static_cast<cuuint32_t>(box_rows / rows_per_block(w.order));
    const cuuint64_t ld = w.k_bytes, k = w.k_bytes, rows = w.rows, experts = w.experts,
                     expert = w.expert_bytes ? w.expert_bytes : w.rows * w.k_bytes;
    const Walk plain{
        {k, 8, 1, rows / 8, experts}, {ld, 8 * ld, 8 * ld, expert}, {box_bytes, 8, 1, blocks, 1}};
    const Walk halves{
        {k, 8, 2, rows / 16, experts}, {ld, rows / 2 * ld, 8 * ld, expert}, {box_bytes, 8, 2, blocks, 1}};
    const Walk shuffled{
        {k, 4, 8, rows / 32, experts}, {8 * ld, ld, 32 * ld, expert}, {box_bytes, 4, 8, blocks, 1}};
    const Walk pairs{
        {k, 8, 2, (rows + 15) / 16, experts}, {2 * ld, ld, 16 * ld, expert}, {box_bytes, 8, 2, blocks, 1}};
    const Walk& walk = w.order == RowOrder::kPlain    ? plain
                       : w.order == RowOrder::kHalves ? halves
                       : w.order == RowOrder::kPairs  ? pairs
                                                      : shuffled;
    return encode_map(map, w.data, 5, walk.dim, walk.stride, walk.box);
}

// Matrices [experts, k, n_bytes]; or blocked, [experts, blocks of n, k_stored, 32 bytes of n].
struct SlabMatrix {
    const void* data;
    int64_t experts;
    int64_t k;
    int64_t n_bytes;
    int64_t expert_bytes;
    int64_t k_stored;
};

// Boxes of `slabs` slabs, each `depth` of k by slab_bytes of n, in lines of line_bytes.
inline cudaError_t encode_slab_map(CUtensorMap* map, const SlabMatrix& w, int slab_bytes, int line_bytes,
                                   int depth, int slabs, bool blocked) {
    const cuuint64_t k = w.k, n = w.n_bytes, experts = w.experts, expert = w.expert_bytes;
    const cuuint64_t slab = slab_bytes, line = line_bytes;
    const auto box_k = static_cast<cuuint32_t>(depth), box_n = static_cast<cuuint32_t>(slab_bytes);
    if (blocked) {
        const cuuint64_t stored = w.k_stored * slab;
        const cuuint64_t dim[5] = {line, stored / line, (n + slab - 1) / slab, 1, experts};
        const cuuint64_t stride[4] = {line, stored, expert, expert};
        const cuuint32_t box[5] = {static_cast<cuuint32_t>(line),
                                   static_cast<cuuint32_t>(depth * slab_bytes / line_bytes),
                                   static_cast<cuuint32_t>(slabs), 1, 1};
        return encode_map(map, w.data, 5, dim, stride, box);
    }
    const cuuint64_t dim[5] = {n, k, 1, 1, experts};
    const cuuint64_t stride[4] = {n, expert, expert, expert};
    const cuuint32_t box[5] = {box_n, box_k, 1, 1, 1};
    return encode_map(map, w.data, 5, dim, stride, box);
}

// Boxes of `depth` rows of [k, columns] memory, box_bytes of each.
inline cudaError_t encode_column_map(CUtensorMap* map, const void* data, int64_t k, int64_t column_bytes,
                                     int64_t pitch, int box_bytes, int depth) {
    const cuuint64_t dim[2] = {static_cast<cuuint64_t>(column_bytes), static_cast<cuuint64_t>(k)};
    const cuuint64_t stride[1] = {static_cast<cuuint64_t>(pitch)};
    const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_bytes), static_cast<cuuint32_t>(depth)};
    return encode_map(map, data, 2, dim, stride, box);
}

// Boxes of `box_rows` neighbouring token rows, 128 bytes of each.
inline cudaError_t encode_token_map(CUtensorMap* map, const void* data, int64_t rows, int64_t k_bytes,
                                    int64_t pitch, int box_rows) {
    const cuuint64_t dim[2] = {static_cast<cuuint64_t>(k_bytes), static_cast<cuuint64_t>(rows)};
    const cuuint64_t stride[1] = {static_cast<cuuint64_t>(pitch)};
    const cuuint32_t box[2] = {kMapBlockBytes, static_cast<cuuint32_t>(box_rows)};
    return encode_map(map, data, 2, dim, stride, box);
}

}  // namespace moe_jit::cuda::gemm

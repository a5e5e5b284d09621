// Routing of few tokens, as one word per expert-sorted row: the expert GEMMs wait for the words themselves,
// not for the end of the routing kernel.
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"

namespace moe_jit::cuda {

constexpr int kListedTokens = 8;
constexpr int kListedRows = 128;

// Word of row r; all of it is zero as long as it is not known. An expert's first row describes the expert.
struct alignas(8) ListedRow {
    uint16_t expert;  // local
    uint16_t row;
    uint16_t tokens;  // bit t: token t chose the expert, and its row follows those of smaller t; 0: not a
                      // first row
    uint16_t rows;    // 1 + rows of all experts; if there are none, one word says so
};

// Four bytes of a GEMM1 row that are not there yet: no conversion to e4m3 gives 0xff, NaN becomes 0x7f. GEMM2
// waits for the values themselves, because a release takes as long as the loads that its SM has in flight.
constexpr uint32_t kUnwritten = 0xffffffff;

MOE_JIT_HD MOE_JIT_INLINE constexpr bool fits_in_list(int64_t num_tokens, int64_t pairs) {
    return num_tokens > 0 && num_tokens <= kListedTokens && pairs <= kListedRows;
}

}  // namespace moe_jit::cuda

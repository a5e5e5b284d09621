// Mmad: C = A B (+ C or a bias row). Integers are exact modulo 2^32, floats are summed in double and rounded
// once.
#pragma once

#include "moe_jit/ascend_emulator/instructions/cast_rules.h"
#include "moe_jit/ascend_emulator/instructions/data_copy.h"
#include "moe_jit/core/rounding.h"

namespace moe_jit::emulator {

template <typename A, typename B, typename C>
constexpr bool multiplies() {
    if (!std::is_same_v<A, B>) return false;
    if (is_one_of<A, int8_t, AscendC::int4b_t>) return std::is_same_v<C, int32_t>;
    return is_float_v<A> && std::is_same_v<C, float>;
}

template <typename T>
constexpr CubeType cube_type() {
    return bits_of<T>() == 4    ? CubeType::I4
           : bits_of<T>() == 8  ? CubeType::I8
           : bits_of<T>() == 16 ? CubeType::F16
                                : CubeType::F32;
}

// Fractals of A along k in L0A, where a float A may be aligned to 16 instead of 8.
template <typename T>
uint64_t depth_in_fractals(const AscendC::MmadParams& p) {
    const bool by_16 = std::is_same_v<T, float> && p.kDirectionAlign;
    return rounded_up(p.k, by_16 ? 16 : elements_per_block<T>()) / elements_per_block<T>();
}

// All elements that take part, with the checks. A: m rows, Zz, or one plain row when m is 1 (GEMV).
template <typename T>
const typename LocalTensor<T>::Storage* read_left(Instruction& op, const LocalTensor<T>& a,
                                                  const AscendC::MmadParams& p) {
    constexpr uint64_t c0 = elements_per_block<T>();
    if (p.m == 1) return op.read(a, {(p.k * uint64_t{bits_of<T>()} + 7) / 8});
    const typename LocalTensor<T>::Storage* data = nullptr;
    const uint64_t row = depth_in_fractals<T>(p) * kFractal;
    for (uint64_t m = 0; m < p.m; m += kFractalRows) {
        const uint64_t rows = std::min<uint64_t>(kFractalRows, p.m - m);
        const uint64_t whole = p.k / c0, rest = p.k % c0 * bits_of<T>() / 8, at = m / kFractalRows * row;
        if (whole) data = op.read(a, {rows * kBlock, whole, kFractal, at});
        if (rest) data = op.read(a, {rest, rows, kBlock, at + whole * kFractal}, {kBlock});
    }
    return data;
}

// B: Zn with n columns, each 32 bytes of k.
template <typename T>
const typename LocalTensor<T>::Storage* read_right(Instruction& op, const LocalTensor<T>& b,
                                                   const AscendC::MmadParams& p) {
    constexpr uint64_t c0 = elements_per_block<T>();
    const uint64_t row = rounded_up(p.n, kFractalRows) * kBlock, whole = p.k / c0,
                   rest = p.k % c0 * bits_of<T>() / 8;
    const typename LocalTensor<T>::Storage* data = nullptr;
    if (whole) data = op.read(b, {p.n * uint64_t{kBlock}, whole, row});
    if (rest) data = op.read(b, {rest, p.n, kBlock, whole * row}, {kBlock});
    return data;
}

// Operands widened to where their products are exact, and sums of 16 columns at a time.
template <typename T, typename C>
class Product {
  public:
    using Wide = std::conditional_t<std::is_same_v<C, float>, double, int32_t>;
    using Storage = typename LocalTensor<T>::Storage;
    static constexpr uint64_t kTile = kFractalRows;

    Product(const Storage* a, const Storage* b, const AscendC::MmadParams& p)
        : depth_(p.k), left_(size_t{p.m} * p.k), right_(rounded_up(p.n, kTile) * p.k) {
        constexpr uint64_t c0 = elements_per_block<T>();
        const uint64_t row = depth_in_fractals<T>(p) * c0, columns = rounded_up(p.n, kTile);
        for (uint64_t m = 0; m < p.m; ++m) {
            for (uint64_t k = 0; k < p.k; ++k) {
                left_[m * depth_ + k] = widened(a, p.m == 1 ? k : zz_index(m, k, row, c0));
            }
        }
        for (uint64_t n = 0; n < p.n; ++n) {
            for (uint64_t k = 0; k < p.k; ++k) {
                right_[(n / kTile * depth_ + k) * kTile + n % kTile] =
                    widened(b, zn_index(k, n, columns, c0));
            }
        }
    }

    void row_of_tile(uint64_t m, uint64_t tile, Wide (&sums)[kTile]) const {
        const Wide* a = left_.data() + m * depth_;
        const Wide* b = right_.data() + tile * depth_ * kTile;
        Wide total[kTile] = {};
        for (uint64_t k = 0; k < depth_; ++k) {
            for (uint64_t n = 0; n < kTile; ++n) total[n] += a[k] * b[k * kTile + n];
        }
        std::copy_n(total, kTile, sums);
    }

  private:
    static Wide widened(const Storage* data, uint64_t element) {
        if constexpr (std::is_same_v<T, AscendC::int4b_t>)
            return int4_of(data, static_cast<int64_t>(element));
        else
            return static_cast<Wide>(data[element]);
    }

    uint64_t depth_;
    std::vector<Wide> left_, right_;  // [m][k], [n / 16][k][16]
};

// A sum into the result of the Mmad before it needs a barrier between them unless it takes long enough.
inline void check_accumulation(Instruction& op, const AscendC::MmadParams& p, bool adds, uint32_t begin,
                               uint32_t end) {
    Registers& registers = op.on().registers;
    const uint32_t barriers = registers.barriers[static_cast<int>(Pipe::M)];
    const bool follows = begin < registers.product_end && end > registers.product_begin &&
                         registers.product_barriers == barriers;
    op.require(!adds || !follows || (p.m / 16) * (p.n / 16) >= 10 || !op.on().machine.options.barriers,
               "missing PipeBarrier<PIPE_M>: adds to the result of the Mmad before it, and (m / 16) * (n / "
               "16) < 10");
    registers.product_begin = begin;
    registers.product_end = end;
    registers.product_barriers = barriers;
}

inline int32_t sum_of(int32_t initial, int32_t product) { return wrapping_add(initial, product); }
inline float sum_of(float initial, double product) { return static_cast<float>(initial + product); }

enum class StartFrom : uint8_t { kZero, kResult, kTable };

template <typename C, typename T>
void multiply(Instruction& op, const LocalTensor<C>& c, const LocalTensor<T>& a, const LocalTensor<T>& b,
              StartFrom start, const LocalTensor<C>& bias, const AscendC::MmadParams& p) {
    op.cube(p.m, p.n, p.k, cube_type<T>());
    if (p.m == 0 || p.n == 0 || p.k == 0) return;
    const uint64_t rows = rounded_up(p.m, kFractalRows), columns = rounded_up(p.n, kFractalRows);
    const Runs all{rows * columns * sizeof(C)};
    const Access access{1024, p.unitFlag};
    const auto* left = read_left(op, a, p);
    const auto* right = read_right(op, b, p);
    const C* row = start == StartFrom::kTable ? op.read(bias, {p.n * sizeof(C)}) : nullptr;
    const bool adds = start == StartFrom::kResult;
    check_accumulation(op, p, adds, c.address, c.address + static_cast<uint32_t>(all.bytes));
    C* out = adds ? op.update(c, all, access) : op.write(c, all, access);
    if (!op.computes()) return;
    using Sums = Product<T, C>;
    const Sums product(left, right, p);
    for (uint64_t first = 0; first < columns; first += Sums::kTile) {
        for (uint64_t m = 0; m < rows; ++m) {
            C* result = out + nz_index(m, first, rows, Sums::kTile);
            typename Sums::Wide sums[Sums::kTile];
            const uint64_t valid = m < p.m ? std::min<uint64_t>(Sums::kTile, p.n - first) : 0;
            if (valid) product.row_of_tile(m, first / Sums::kTile, sums);
            for (uint64_t n = 0; n < valid; ++n) {
                const C initial = start == StartFrom::kZero ? C{0} : adds ? result[n] : row[first + n];
                result[n] = sum_of(initial, sums[n]);
            }
            std::memset(result + valid, poison_byte<C>(), (Sums::kTile - valid) * sizeof(C));
        }
    }
}

template <typename C, typename A, typename B>
void multiply_checked(Instruction& op, const LocalTensor<C>& c, const LocalTensor<A>& a,
                      const LocalTensor<B>& b, StartFrom start, const LocalTensor<C>& bias,
                      const AscendC::MmadParams& p) {
    op.require(multiplies<A, B, C>(), "%s times %s to %s does not exist on this chip", format_name<A>(),
               format_name<B>(), format_name<C>());
    op.require(a.memory() == Memory::L0A && b.memory() == Memory::L0B && c.memory() == Memory::L0C,
               "operands lie in %s, %s and %s instead of L0A, L0B and L0C", name_of(a.memory()),
               name_of(b.memory()), name_of(c.memory()));
    op.require(p.m <= 4095 && p.n <= 4095 && p.k <= 4095, "m %u, n %u, k %u: at most 4095", p.m, p.n, p.k);
    op.require(p.unitFlag == 0 || p.unitFlag == 2 || p.unitFlag == 3, "unitFlag is %u, not 0, 2 or 3",
               p.unitFlag);
    if constexpr (multiplies<A, B, C>()) multiply<C, A>(op, c, a, b, start, bias, p);
}

}  // namespace moe_jit::emulator

namespace AscendC {

// A in L0A, B in L0B, C in L0C: see layouts.h. The initial C is zero (cmatrixInitVal), a row in BT
// (cmatrixSource), or what C holds. Rows and columns beyond m and n, up to multiples of 16, get arbitrary
// values.
template <typename T, typename U, typename S>
void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter,
          const MmadParams& mmadParams, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::M, "Mmad", site);
    const bool from_table = !mmadParams.cmatrixInitVal && mmadParams.cmatrixSource;
    op.require(!from_table, "cmatrixSource without a bias tensor is not modelled: pass the tensor in BT");
    multiply_checked(op, dst, fm, filter, mmadParams.cmatrixInitVal ? StartFrom::kZero : StartFrom::kResult,
                     LocalTensor<T>{}, mmadParams);
}

// C starts as the bias row in every row.
template <typename T, typename U, typename S, typename V>
void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<S>& filter,
          const LocalTensor<V>& bias, const MmadParams& mmadParams, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    static_assert(std::is_same_v<T, V>, "the bias has the format of C");
    Instruction op(Pipe::M, "Mmad", site);
    op.require(!std::is_same_v<U, int4b_t>, "int4b_t takes no bias");
    op.require(bias.memory() == Memory::BT, "the bias must lie in BT, not %s", name_of(bias.memory()));
    multiply_checked(op, dst, fm, filter, StartFrom::kTable, bias, mmadParams);
}

}  // namespace AscendC

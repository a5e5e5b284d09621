// Fixpipe: results of the matrix unit from L0C to global memory, converted on the way.
#pragma once

#include "moe_jit/ascend_emulator/instructions/data_copy.h"
#include "moe_jit/core/rounding.h"

namespace moe_jit::emulator {

constexpr bool quantises_by_column(QuantMode_t mode) {
    return mode == VDEQF16 || mode == VQF322B8_PRE || mode == VREQ8;
}
constexpr bool takes_scale(QuantMode_t mode) { return mode > F322BF16; }

constexpr const char* mode_name(QuantMode_t mode) {
    constexpr const char* names[] = {"NoQuant",     "F322F16",      "F322BF16", "DEQF16", "VDEQF16",
                                     "QF322B8_PRE", "VQF322B8_PRE", "REQ8",     "VREQ8"};
    return names[mode];
}

template <typename From, typename To>
constexpr bool converts(QuantMode_t mode) {
    constexpr bool from_float = std::is_same_v<From, float>, from_int = std::is_same_v<From, int32_t>;
    switch (mode) {
        case NoQuant:
            return std::is_same_v<From, To> && (from_float || from_int);
        case F322F16:
            return from_float && std::is_same_v<To, half>;
        case F322BF16:
            return from_float && std::is_same_v<To, bfloat16_t>;
        case DEQF16:
        case VDEQF16:
            return from_int && std::is_same_v<To, half>;
        case QF322B8_PRE:
        case VQF322B8_PRE:
            return from_float && is_one_of<To, int8_t, uint8_t>;
        case REQ8:
        case VREQ8:
            return from_int && is_one_of<To, int8_t, uint8_t>;
    }
    return false;
}

template <typename From, typename To>
constexpr bool fixpipe_exists() {
    for (int mode = NoQuant; mode <= VREQ8; ++mode) {
        if (converts<From, To>(static_cast<QuantMode_t>(mode))) return true;
    }
    return false;
}

// A quantisation word whose multiplier is a normal number or zero and that uses nothing undocumented. Its bit
// 46, not the format of the destination, decides between signed and unsigned bytes.
inline RequantParameter checked_word(const Instruction& op, uint64_t word) {
    const RequantParameter parameter = RequantParameter::unpack(word);
    op.require((word >> 36 & 1) == 0, "the shift of the quantisation word (bit 36) is not modelled");
    const uint32_t magnitude = static_cast<uint32_t>(word) & 0x7fffffffu;
    op.require(magnitude == 0 || (magnitude >= 0x00800000u && magnitude < 0x7f800000u),
               "the multiplier of the quantisation word is not a normal number");
    return parameter;
}

// One element. Relu comes before everything else: it replaces the multiplier of negative values by zero.
template <typename To, typename From>
To fixed(From value, QuantMode_t mode, const RequantParameter& word, bool relu) {
    if (relu && value < 0) value = 0;
    if constexpr (std::is_same_v<From, To>) {
        return value;
    } else {
        if (!takes_scale(mode)) return rounded<To>(static_cast<double>(value));
        const float product = static_cast<float>(value) * word.scale;
        if constexpr (sizeof(To) == 1)
            return static_cast<To>(word.quantise(product));
        else
            return rounded<To>(static_cast<double>(product));
    }
}

// Where row `row` of the columns from `column` on begins, in elements; `*together` columns lie side by side.
template <typename To>
uint64_t target_of(const AscendC::FixpipeParamsV220& p, AscendC::CO2Layout format, uint64_t row,
                   uint64_t column, uint64_t* together) {
    if (format == AscendC::CO2Layout::ROW_MAJOR) {
        *together = p.nSize - column;
        return row * p.dstStride + column;
    }
    constexpr uint64_t width = sizeof(To) == 1 ? 32 : 16;  // fractals of bytes are merged in pairs
    *together = std::min<uint64_t>(width, p.nSize - column);
    return column / width * p.dstStride * kBlock / sizeof(To) + row * *together;
}

template <typename To, typename From>
void check_fixpipe(const Instruction& op, const LocalTensor<From>& src, const AscendC::FixpipeParamsV220& p,
                   AscendC::CO2Layout format) {
    const bool rows = format == AscendC::CO2Layout::ROW_MAJOR;
    op.require(converts<From, To>(p.quantPre), "%s does not convert %s to %s", mode_name(p.quantPre),
               format_name<From>(), format_name<To>());
    op.require(src.memory() == Memory::L0C, "the source must lie in L0C, not %s", name_of(src.memory()));
    op.require(p.nSize <= 4095 && p.nSize % 16 == 0, "nSize is %u, no multiple of 16 up to 4095", p.nSize);
    op.require(p.mSize <= (rows ? 8192 : 65535), "mSize is %u, at most %d", p.mSize, rows ? 8192 : 65535);
    op.require(p.dstStride != 0, "dstStride is 0");
    op.require(p.ndNum <= 1,
               "ndNum above 1 is not modelled: the unit of srcNdStride is documented in two ways");
    op.require(!p.isChannelSplit, "isChannelSplit is not modelled");
    op.require(p.unitFlag == 0 || p.unitFlag == 2 || p.unitFlag == 3, "unitFlag is %u, not 0, 2 or 3",
               p.unitFlag);
}

template <typename To, typename From>
void fixpipe(Instruction& op, const GlobalTensor<To>& dst, const LocalTensor<From>& src,
             const uint64_t* table, const AscendC::FixpipeParamsV220& p, AscendC::CO2Layout format) {
    const bool in_rows = format == AscendC::CO2Layout::ROW_MAJOR;
    const uint64_t rows = p.mSize, columns = p.nSize, line = p.srcStride * 16 * sizeof(From);
    const From* in = op.read(src, {rows * 16 * sizeof(From), columns / 16, line}, {0, p.unitFlag});
    GlobalStore<To> out(op, dst);
    uint64_t together = 0;
    for (uint64_t column = 0; column < columns; column += together) {
        const uint64_t at = target_of<To>(p, format, 0, column, &together) * sizeof(To),
                       bytes = together * sizeof(To);
        out.claim({bytes, rows, in_rows ? p.dstStride * sizeof(To) : bytes, at},
                  in_rows ? 1 : std::min<uint32_t>(kBlock, static_cast<uint32_t>(bytes)));
    }
    if (!op.computes()) return;
    std::vector<RequantParameter> words(columns, RequantParameter{});
    for (uint64_t column = 0; column < columns && takes_scale(p.quantPre); ++column) {
        const uint64_t word = table ? table[column] : p.deqScalar;
        words[column] = checked_word(op, word);
    }
    std::vector<To> values(columns);
    for (uint64_t row = 0; row < rows; ++row) {
        for (uint64_t column = 0; column < columns; column += 16) {
            const From* source = in + nz_index(row, column, p.srcStride, 16);
            for (uint64_t n = column; n < column + 16; ++n) {
                values[n] = fixed<To>(source[n - column], p.quantPre, words[n], p.reluEn);
            }
        }
        for (uint64_t column = 0; column < columns; column += together) {
            const uint64_t at = target_of<To>(p, format, row, column, &together);
            out.put(at * sizeof(To), values.data() + column, together);
        }
    }
}

}  // namespace moe_jit::emulator

namespace AscendC {

// nSize columns (a multiple of 16) of mSize rows. The modes that quantise take deqScalar.
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src, const FixpipeParamsV220& intriParams,
             Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::FIX, "Fixpipe", site);
    check_fixpipe<T>(op, src, intriParams, config.format);
    op.require(!quantises_by_column(intriParams.quantPre), "%s needs a table of quantisation words",
               mode_name(intriParams.quantPre));
    const uint64_t bytes = uint64_t{intriParams.mSize} * intriParams.nSize * sizeof(T);
    op.transfer(Memory::L0C, Memory::GM, bytes, intriParams.mSize);
    if (bytes == 0 || intriParams.ndNum == 0) return;
    if constexpr (fixpipe_exists<U, T>()) fixpipe(op, dst, src, nullptr, intriParams, config.format);
}

// With one quantisation word for each column, in L1.
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
             const LocalTensor<uint64_t>& cbufWorkspace, const FixpipeParamsV220& intriParams,
             Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::FIX, "Fixpipe", site);
    check_fixpipe<T>(op, src, intriParams, config.format);
    op.require(quantises_by_column(intriParams.quantPre), "%s takes no table",
               mode_name(intriParams.quantPre));
    op.require(cbufWorkspace.memory() == Memory::L1, "the table must lie in L1, not %s",
               name_of(cbufWorkspace.memory()));
    const uint64_t bytes = uint64_t{intriParams.mSize} * intriParams.nSize * sizeof(T);
    op.transfer(Memory::L0C, Memory::GM, bytes, intriParams.mSize);
    if (bytes == 0 || intriParams.ndNum == 0) return;
    const uint64_t* table = op.read(cbufWorkspace, {intriParams.nSize * sizeof(uint64_t)});
    if constexpr (fixpipe_exists<U, T>()) fixpipe(op, dst, src, table, intriParams, config.format);
}

}  // namespace AscendC

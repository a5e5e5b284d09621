#include "driver.h"

namespace driver {

// position, dst, src, start, repeats, srcStride, dstGap, transpose; the source lies in L1, or in GM if
// `from_gm`.
INSTRUCTION(LoadData) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const bool from_gm = p.next() != 0;
        const auto dst = next_tensor<T>(p);
        const int64_t src = p.next();
        const LoadData2DParams load{
            p.as<uint16_t>(), p.as<uint8_t>(), p.as<uint16_t>(), 0, p.as<uint16_t>(), p.as<bool>(), 0};
        if (from_gm)
            AscendC::LoadData(dst, global<T>(gm + src), load);
        else
            AscendC::LoadData(dst, tensor<T>(TPosition::A1, src), load);
    });
}

INSTRUCTION(LoadDataWithTranspose) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = next_tensor<T>(p);
        const auto src = tensor<T>(TPosition::A1, p.next());
        const LoadData2dTransposeParams load{p.as<uint16_t>(), p.as<uint8_t>(), p.as<uint16_t>(),
                                             p.as<uint16_t>(), p.as<uint16_t>()};
        AscendC::LoadDataWithTranspose(dst, src, load);
    });
}

template <typename A, typename C>
void mmad(Parameters& p) {
    const auto c = tensor<C>(TPosition::CO1, p.next());
    const auto a = tensor<A>(TPosition::A2, p.next()), b = tensor<A>(TPosition::B2, p.next());
    const auto start = p.as<int>();  // 0 zero, 1 what C holds, 2 bias at the address
    const int64_t bias = p.next();
    MmadParams params;
    params.m = p.as<uint16_t>();
    params.n = p.as<uint16_t>();
    params.k = p.as<uint16_t>();
    params.kDirectionAlign = p.next() != 0;
    params.cmatrixInitVal = start == 0;
    if (start == 2)
        AscendC::Mmad(c, a, b, tensor<C>(TPosition::C2, bias), params);
    else
        AscendC::Mmad(c, a, b, params);
}

INSTRUCTION(Mmad) {
    switch (p.next()) {
        case 0:
            return mmad<int8_t, int32_t>(p);
        case 1:
            return mmad<int4b_t, int32_t>(p);
        case 2:
            return mmad<half, float>(p);
        case 3:
            return mmad<bfloat16_t, float>(p);
        case 4:
            return mmad<float, float>(p);
        case 5:
            return mmad<int8_t, float>(p);
        default:
            return mmad<uint8_t, int32_t>(p);
    }
}

// Twice into the same place, with or without a barrier between.
INSTRUCTION(MmadTwice) {
    MmadParams params;
    params.m = p.as<uint16_t>();
    params.n = p.as<uint16_t>();
    params.k = 16;
    const auto c = tensor<float>(TPosition::CO1, 0);
    const auto a = tensor<half>(TPosition::A2, 0), b = tensor<half>(TPosition::B2, 0);
    AscendC::Mmad(c, a, b, params);
    if (p.next()) PipeBarrier<PIPE_M>();
    params.cmatrixInitVal = false;
    AscendC::Mmad(c, a, b, params);
}

// A product and its way out without an event between them; the unit flags of both.
INSTRUCTION(UnitFlags) {
    MmadParams params;
    params.m = params.n = params.k = 16;
    params.unitFlag = p.as<uint8_t>();
    const auto c = tensor<float>(TPosition::CO1, 0);
    AscendC::Mmad(c, tensor<half>(TPosition::A2, 0), tensor<half>(TPosition::B2, 0), params);
    FixpipeParamsV220 out(16, 16, 16, 16, false);
    out.unitFlag = p.as<uint8_t>();
    AscendC::Fixpipe(global<float>(gm), c, out);
}

template <typename To, typename From>
void fixpipe(Parameters& p, uint8_t* gm) {
    const auto dst = global<To>(gm + p.next());
    const auto src = tensor<From>(TPosition::CO1, p.next());
    const int64_t table = p.next();  // -1: none
    const bool nz = p.next() != 0, atomic = p.next() != 0;
    FixpipeParamsV220 params;
    params.nSize = p.as<uint16_t>();
    params.mSize = p.as<uint16_t>();
    params.srcStride = p.as<uint16_t>();
    params.dstStride = p.as<uint32_t>();
    params.quantPre = static_cast<QuantMode_t>(p.next());
    params.deqScalar = p.as<uint64_t>();
    params.reluEn = p.next() != 0;
    if (atomic) SetAtomicAdd<To>();
    const auto words = tensor<uint64_t>(TPosition::C1, table < 0 ? 0 : table);
    if (table < 0 && nz)
        AscendC::Fixpipe<To, From, CFG_NZ>(dst, src, params);
    else if (table < 0)
        AscendC::Fixpipe<To, From, CFG_ROW_MAJOR>(dst, src, params);
    else if (nz)
        AscendC::Fixpipe<To, From, CFG_NZ>(dst, src, words, params);
    else
        AscendC::Fixpipe<To, From, CFG_ROW_MAJOR>(dst, src, words, params);
    SetAtomicNone();
}

INSTRUCTION(Fixpipe) {
    const bool from_float = p.next() != 0;
    with_type<half, float, bfloat16_t, int8_t, uint8_t, int32_t>(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        if (from_float) {
            fixpipe<T, float>(p, gm);
        } else {
            fixpipe<T, int32_t>(p, gm);
        }
    });
}

}  // namespace driver

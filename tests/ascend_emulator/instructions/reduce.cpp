#include "driver.h"

namespace driver {

template <typename Function>
void with_real_type(int64_t code, Function function) {
    with_type<half, float>(code, function);
}

// type, kind (0 sum, 1 max, 2 min), dst, src, by bits, mask words, repeats, strides, order
template <ReduceType kind, typename T>
void reduce_repeat(Parameters& p) {
    const auto d = ub<T>(p.next()), s = ub<T>(p.next());
    const bool by_bits = p.next() != 0;
    const uint64_t bits[2] = {p.as<uint64_t>(), p.as<uint64_t>()};
    const auto repeats = p.as<int32_t>(), dst = p.as<int32_t>(), block = p.as<int32_t>(),
               src = p.as<int32_t>();
    const auto order = static_cast<ReduceOrder>(p.next());
    if (by_bits) {
        AscendC::ReduceRepeat<kind>(d, s, static_cast<const uint64_t*>(bits), repeats, dst, block, src,
                                    order);
    } else {
        AscendC::ReduceRepeat<kind>(d, s, static_cast<int32_t>(bits[0]), repeats, dst, block, src, order);
    }
}

template <ReduceType kind, typename T>
void reduce_block(Parameters& p) {
    const auto d = ub<T>(p.next()), s = ub<T>(p.next());
    const bool by_bits = p.next() != 0;
    const uint64_t bits[2] = {p.as<uint64_t>(), p.as<uint64_t>()};
    const auto repeats = p.as<int32_t>(), dst = p.as<int32_t>(), block = p.as<int32_t>(),
               src = p.as<int32_t>();
    if (by_bits) {
        AscendC::ReduceDataBlock<kind>(d, s, static_cast<const uint64_t*>(bits), repeats, dst, block, src);
    } else {
        AscendC::ReduceDataBlock<kind>(d, s, static_cast<int32_t>(bits[0]), repeats, dst, block, src);
    }
}

INSTRUCTION(ReduceRepeat) {
    with_real_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        switch (p.next()) {
            case 0:
                return reduce_repeat<ReduceType::SUM, T>(p);
            case 1:
                return reduce_repeat<ReduceType::MAX, T>(p);
            default:
                return reduce_repeat<ReduceType::MIN, T>(p);
        }
    });
}

INSTRUCTION(ReduceDataBlock) {
    with_real_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        switch (p.next()) {
            case 0:
                return reduce_block<ReduceType::SUM, T>(p);
            case 1:
                return reduce_block<ReduceType::MAX, T>(p);
            default:
                return reduce_block<ReduceType::MIN, T>(p);
        }
    });
}

// The older names, with all lanes: whole repeats, then blocks.
INSTRUCTION(OlderNames) {
    const auto d = ub<float>(p.next()), s = ub<float>(p.next());
    switch (p.next()) {
        case 0:
            return WholeReduceSum(d, s, 64, 2, 1, 1, 8);
        case 1:
            return WholeReduceMax(d, s, 64, 2, 1, 1, 8, ReduceOrder::ORDER_ONLY_VALUE);
        case 2:
            return WholeReduceMin(d, s, 64, 2, 1, 1, 8, ReduceOrder::ORDER_ONLY_VALUE);
        case 3:
            return BlockReduceSum(d, s, 2, 64, 1, 1, 8);
        case 4:
            return BlockReduceMax(d, s, 2, 64, 1, 1, 8);
        default:
            return BlockReduceMin(d, s, 2, 64, 1, 1, 8);
    }
}

// type, kind, dst, src, work, count, with index
INSTRUCTION(ReduceAll) {
    with_real_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto kind = p.as<int>();
        const auto d = ub<T>(p.next()), s = ub<T>(p.next());
        auto work = ub<T>(p.next());
        work.SetSize(p.as<uint32_t>());
        const auto count = p.as<int32_t>();
        const bool index = p.next() != 0;
        if (kind == 0) ReduceSum(d, s, work, count);
        if (kind == 1) ReduceMax(d, s, work, count, index);
        if (kind == 2) ReduceMin(d, s, work, count, index);
    });
}

INSTRUCTION(ReduceAllMasked) {
    with_real_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto kind = p.as<int>();
        const auto d = ub<T>(p.next()), s = ub<T>(p.next()), work = ub<T>(p.next());
        const auto mask = p.as<int32_t>(), repeats = p.as<int32_t>(), stride = p.as<int32_t>();
        if (kind == 0) ReduceSum(d, s, work, mask, repeats, stride);
        if (kind == 1) ReduceMax(d, s, work, mask, repeats, stride);
        if (kind == 2) ReduceMin(d, s, work, mask, repeats, stride);
    });
}

// type (half, float, int32_t), mode, dst, src0, src1, count; strided: repeats, strides of both sources
INSTRUCTION(Compare) {
    with_type<half, float, int32_t>(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto mode = static_cast<CMPMODE>(p.next());
        const auto d = ub<uint8_t>(p.next());
        const auto a = ub<T>(p.next()), b = ub<T>(p.next());
        if (p.next() == 0) return AscendC::Compare(d, a, b, mode, p.as<uint32_t>());
        const auto repeats = p.as<uint8_t>();
        const BinaryRepeatParams r{1, p.as<uint8_t>(), p.as<uint8_t>(), 8, p.as<uint8_t>(), p.as<uint8_t>()};
        AscendC::Compare(d, a, b, mode, 1, repeats, r);
    });
}

INSTRUCTION(Compares) {
    with_type<half, float, int32_t>(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto mode = static_cast<CMPMODE>(p.next());
        const auto d = ub<uint8_t>(p.next());
        const auto a = ub<T>(p.next());
        const T value = scalar<T>(p.next());
        AscendC::Compares(d, a, value, mode, p.as<uint32_t>());
    });
}

// type, mode, dst, bits, src0, src1 (address or scalar), count (form 0) or mask, repeats, strides
INSTRUCTION(Select) {
    with_real_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto mode = static_cast<SELMODE>(p.next());
        const auto d = ub<T>(p.next());
        const auto bits = ub<uint8_t>(p.next());
        const auto a = ub<T>(p.next());
        const int64_t other = p.next();
        const bool with_scalar = mode == SELMODE::VSEL_TENSOR_SCALAR_MODE;
        const T value = scalar<T>(other);
        const auto b = ub<T>(with_scalar ? 0 : other);
        if (p.next() == 0) {
            const auto count = p.as<uint32_t>();
            if (with_scalar)
                AscendC::Select(d, bits, a, value, mode, count);
            else
                AscendC::Select(d, bits, a, b, mode, count);
            return;
        }
        const auto mask = p.as<uint64_t>();
        const auto repeats = p.as<uint8_t>();
        const BinaryRepeatParams r{p.as<uint8_t>(), p.as<uint8_t>(), p.as<uint8_t>(),
                                   p.as<uint8_t>(), p.as<uint8_t>(), p.as<uint8_t>()};
        if (with_scalar)
            AscendC::Select(d, bits, a, value, mode, mask, repeats, r);
        else
            AscendC::Select(d, bits, a, b, mode, mask, repeats, r);
    });
}

// type, dst, src, offsets, base, count (form 0) or mask words, repeats, stride (1: mask, 2: bits)
INSTRUCTION(Gather) {
    with_vector_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto d = ub<T>(p.next()), s = ub<T>(p.next());
        const auto offsets = ub<uint32_t>(p.next());
        const auto base = p.as<uint32_t>();
        const auto form = p.as<int>();
        if (form == 0) return AscendC::Gather(d, s, offsets, base, p.as<uint32_t>());
        const uint64_t bits[2] = {p.as<uint64_t>(), p.as<uint64_t>()};
        const auto repeats = p.as<uint8_t>();
        const auto stride = p.as<uint16_t>();
        if (form == 1)
            AscendC::Gather(d, s, offsets, base, bits[0], repeats, stride);
        else
            AscendC::Gather(d, s, offsets, base, static_cast<const uint64_t*>(bits), repeats, stride);
    });
}

// type, dst, src, address to which the number of kept elements is written, pattern or address of its bits,
// counter mode, mask, block stride, repeats, repeat strides
INSTRUCTION(GatherMask) {
    with_vector_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto d = ub<T>(p.next()), s = ub<T>(p.next());
        const int64_t found = p.next(), pattern = p.next();
        const bool by_tensor = p.next() != 0, counts = p.next() != 0;
        const auto mask = p.as<uint32_t>();
        const GatherMaskParams params{p.as<uint8_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint8_t>()};
        uint64_t kept = ~uint64_t{0};
        using Word = std::conditional_t<sizeof(T) == 4, uint32_t,
                                        std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>;
        if (by_tensor)
            AscendC::GatherMask(d, s, ub<Word>(pattern), counts, mask, params, kept);
        else
            AscendC::GatherMask(d, s, static_cast<uint8_t>(pattern), counts, mask, params, kept);
        std::memcpy(em::core().memory(em::Memory::UB).bytes() + found, &kept, sizeof(kept));
    });
}

}  // namespace driver

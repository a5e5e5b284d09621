#include "driver.h"

namespace driver {

// Byte addresses; type codes as in with_any_type. The second tensor of a copy is on chip at `position`.
INSTRUCTION(CopyIn) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = next_tensor<T>(p);
        const auto src = global<T>(gm + p.next());
        const DataCopyParams copy{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>()};
        AscendC::DataCopy(dst, src, copy);
    });
}

INSTRUCTION(CopyInCount) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = next_tensor<T>(p);
        const auto src = global<T>(gm + p.next());
        AscendC::DataCopy(dst, src, p.as<uint32_t>());
    });
}

INSTRUCTION(CopyOut) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = global<T>(gm + p.next());
        const auto src = next_tensor<T>(p);
        const DataCopyParams copy{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>()};
        AscendC::DataCopy(dst, src, copy);
    });
}

INSTRUCTION(CopyLocal) {
    const auto dst = next_tensor<uint64_t>(p);
    const auto src = next_tensor<uint64_t>(p);
    const DataCopyParams copy{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>()};
    AscendC::DataCopy(dst, src, copy);
}

// ..., count, bytes, gaps; isPad, left, right, value; whether SetPadValue sets the value instead
INSTRUCTION(CopyPadIn) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        if constexpr (!std::is_same_v<T, int4b_t>) {
            const auto dst = next_tensor<T>(p);
            const auto src = global<T>(gm + p.next());
            const DataCopyExtParams copy{p.as<uint16_t>(), p.as<uint32_t>(), p.as<uint32_t>(),
                                         p.as<uint32_t>(), 0};
            const bool is_pad = p.next() != 0;
            const auto left = p.as<uint8_t>(), right = p.as<uint8_t>();
            const T value = scalar<T>(p.next());
            if (p.next()) SetPadValue(value);
            AscendC::DataCopyPad(dst, src, copy, DataCopyPadExtParams<T>{is_pad, left, right, value});
        }
    });
}

// The last parameter: 1 adds instead of storing.
INSTRUCTION(CopyPadOut) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = global<T>(gm + p.next());
        const auto src = next_tensor<T>(p);
        const DataCopyExtParams copy{p.as<uint16_t>(), p.as<uint32_t>(), p.as<uint32_t>(), p.as<uint32_t>(),
                                     0};
        if (p.next()) SetAtomicAdd<T>();
        AscendC::DataCopyPad(dst, src, copy);
        SetAtomicNone();
    });
}

INSTRUCTION(AtomicOfAnotherType) {
    SetAtomicAdd<float>();
    AscendC::DataCopyPad(global<int32_t>(gm), ub<int32_t>(0), DataCopyExtParams{1, 32, 0, 0, 0});
    (void)p;
}

INSTRUCTION(Nd2Nz) {
    with_any_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto dst = tensor<T>(TPosition::A1, p.next());
        const auto src = global<T>(gm + p.next());
        const Nd2NzParams copy{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(),
                               p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>()};
        AscendC::DataCopy(dst, src, copy);
    });
}

}  // namespace driver

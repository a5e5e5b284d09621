#include "driver.h"

namespace driver {

// dst type, src type, dst, src, mode, form: 0 count | 1 mask, repeats, strides | 2 bits
INSTRUCTION(Cast) {
    const int64_t to = p.next(), from = p.next();
    with_any_type(to, [&](auto dst_type) {
        with_any_type(from, [&](auto src_type) {
            const auto d = ub<typename decltype(dst_type)::type>(p.next());
            const auto s = ub<typename decltype(src_type)::type>(p.next());
            const auto mode = static_cast<RoundMode>(p.next());
            const auto form = p.as<int>();
            if (form == 0) return AscendC::Cast(d, s, mode, p.as<uint32_t>());
            const uint64_t bits[2] = {p.as<uint64_t>(), p.as<uint64_t>()};
            const auto repeats = p.as<uint8_t>();
            const UnaryRepeatParams r{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint8_t>(), p.as<uint8_t>()};
            if (form == 1)
                AscendC::Cast(d, s, mode, bits[0], repeats, r);
            else
                AscendC::Cast(d, s, mode, static_cast<const uint64_t*>(bits), repeats, r);
        });
    });
}

// int32_t to half times a scale.
INSTRUCTION(CastWithDeqScale) {
    const auto d = ub<half>(p.next());
    const auto s = ub<int32_t>(p.next());
    SetDeqScale(scalar<half>(p.next()));
    AscendC::Cast(d, s, RoundMode::CAST_NONE, p.as<uint32_t>());
}

}  // namespace driver

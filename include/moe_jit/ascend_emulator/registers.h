// Control registers of a core that instructions set and later instructions read. Reset at launch.
#pragma once

#include <cstdint>

namespace moe_jit::emulator {

struct Registers {
    bool atomic_add = false;  // following transfers to GM add
    uint8_t atomic_bits = 0;
};

}  // namespace moe_jit::emulator

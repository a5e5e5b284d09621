// All instructions.
#pragma once

#include "moe_jit/ascend_emulator/instructions/arithmetic.h"
#include "moe_jit/ascend_emulator/instructions/atomics.h"
#include "moe_jit/ascend_emulator/instructions/cast.h"
#include "moe_jit/ascend_emulator/instructions/compare_select.h"
#include "moe_jit/ascend_emulator/instructions/data_copy.h"
#include "moe_jit/ascend_emulator/instructions/data_copy_pad.h"
#include "moe_jit/ascend_emulator/instructions/fill.h"
#include "moe_jit/ascend_emulator/instructions/fixpipe.h"
#include "moe_jit/ascend_emulator/instructions/gather.h"
#include "moe_jit/ascend_emulator/instructions/load_data.h"
#include "moe_jit/ascend_emulator/instructions/mmad.h"
#include "moe_jit/ascend_emulator/instructions/nd2nz.h"
#include "moe_jit/ascend_emulator/instructions/reduce.h"
#include "moe_jit/ascend_emulator/instructions/reduce_all.h"
#include "moe_jit/ascend_emulator/instructions/unsupported.h"

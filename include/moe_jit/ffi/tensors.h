// Element types of tensor arguments, as run-time numbers.
#pragma once

#include "moe_jit/core/element.h"
#include "moe_jit/core/half.h"
#include "moe_jit/core/numeric.h"
#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

using moe_jit::Element;

inline Element element_of(const TensorView& tensor) {
    const DLDataType dtype = tensor.dtype();
    if (dtype.code == kDLBfloat) return Element::kBf16;
    if (dtype.code == kDLFloat) return dtype.bits == 16 ? Element::kF16 : Element::kF32;
    return dtype.bits == 8 ? Element::kI8 : dtype.bits == 32 ? Element::kI32 : Element::kI64;
}

// Calls visit(Format{}) with the traits of a floating-point element type.
template <class Visit>
auto with_float_format(Element element, Visit visit) {
    if (element == Element::kF16) return visit(F16{});
    if (element == Element::kBf16) return visit(Bf16{});
    if (element == Element::kF32) return visit(F32{});
    TVM_FFI_THROW(TypeError) << "expected a float16, bfloat16 or float32 tensor";
}

}  // namespace moe_jit::ffi

// Reading the positional arguments of a module's entry points.
//
// They are unpacked by position instead of through TVM_FFI_DLL_EXPORT_TYPED_FUNC: for many parameters that
// macro takes the compiler more than three seconds.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>

namespace moe_jit::ffi {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

class ArgumentReader {
  public:
    ArgumentReader(const TVMFFIAny* args, int32_t count)
        : next_(reinterpret_cast<const tvm::ffi::AnyView*>(args)), end_(next_ + count) {}

    template <class T>
    operator T() {  // NOLINT(google-explicit-constructor)
        return read<T>();
    }

    void expect_end() const {
        if (next_ != end_) TVM_FFI_THROW(TypeError) << (end_ - next_) << " arguments too many";
    }

  private:
    template <class T>
    __attribute__((noinline)) T read() {
        if (next_ == end_) TVM_FFI_THROW(TypeError) << "too few arguments";
        return (next_++)->cast<T>();
    }

    const tvm::ffi::AnyView* next_;
    const tvm::ffi::AnyView* end_;
};

template <class T>
T* data(const TensorView& tensor) {
    return reinterpret_cast<T*>(static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset());
}

template <class T>
T* data(const Optional<TensorView>& tensor) {
    return tensor.has_value() ? data<T>(tensor.value()) : nullptr;
}

inline bool is_bf16(const Optional<TensorView>& tensor) {
    return tensor.has_value() && tensor.value().dtype().code == kDLBfloat;
}

}  // namespace moe_jit::ffi

// Exports `function(const Call&)` as the module's function `name`; `read(args, count)` returns the Call. Use
// outside any namespace.
#define MOE_JIT_EXPORT(name, read, function)                                                        \
    extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_##name(void*, const TVMFFIAny* args, int32_t count, \
                                                       TVMFFIAny* result) {                         \
        TVM_FFI_SAFE_CALL_BEGIN();                                                                  \
        function(read(args, count));                                                                \
        *reinterpret_cast<::tvm::ffi::Any*>(result) = nullptr;                                      \
        TVM_FFI_SAFE_CALL_END();                                                                    \
    }

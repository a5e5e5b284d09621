// Launches the kernel of MOE_JIT_SOURCE on an NPU; compiled by bisheng together with it.
//
// The module's function `launch(blocks, stream, argument...)` takes integers, addresses among them. It is
// spelled out in tvm-ffi's C convention, so that neither bisheng nor the NPU's machine needs more than a C
// header. MOE_JIT_ENTRY is the kernel and MOE_JIT_ARGUMENTS(at) its arguments, at(0), at(1), ...: addresses
// of the NPU.
#include MOE_JIT_SOURCE

#include <tvm/ffi/c_api.h>

extern "C" __attribute__((visibility("default"))) int __tvm_ffi_launch(void*, const TVMFFIAny* arguments,
                                                                       int32_t, TVMFFIAny* result) {
    const auto address = [arguments](int i) { return reinterpret_cast<GM_ADDR>(arguments[2 + i].v_int64); };
    const auto blocks = static_cast<uint32_t>(arguments[0].v_int64);
    auto* stream = reinterpret_cast<void*>(arguments[1].v_int64);
    MOE_JIT_ENTRY<<<blocks, nullptr, stream>>>(MOE_JIT_ARGUMENTS(address));
    result->type_index = kTVMFFINone;
    return 0;
}

// What the tvm-ffi entry points of the CUDA modules share.
#pragma once

#include <cuda_runtime_api.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/extra/cuda/device_guard.h>

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::cuda {

inline void check(cudaError_t error, const char* stage) {
    if (error != cudaSuccess) {
        TVM_FFI_THROW(RuntimeError) << "launching " << stage << " failed: " << cudaGetErrorString(error);
    }
}

// The device of `tensor` made current, and the stream that the environment uses there.
class DeviceStream {
  public:
    explicit DeviceStream(const ffi::TensorView& tensor)
        : device_(tensor.device()),
          guard_(device_.device_id),
          stream_(static_cast<cudaStream_t>(TVMFFIEnvGetStream(device_.device_type, device_.device_id))) {}

    cudaStream_t stream() const { return stream_; }
    int num_sms() const { return attribute(cudaDevAttrMultiProcessorCount); }
    int64_t cache_bytes() const { return attribute(cudaDevAttrL2CacheSize); }

    // Scratch memory from the environment's allocator; live as long as the result.
    tvm::ffi::Tensor allocate(int64_t bytes) const {
        return tvm::ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {bytes}, DLDataType{kDLUInt, 8, 1},
                                              device_);
    }

  private:
    int attribute(cudaDeviceAttr which) const {
        int value = 0;
        check(cudaDeviceGetAttribute(&value, which, device_.device_id), "the device query");
        return value;
    }

    DLDevice device_;
    tvm::ffi::CUDADeviceGuard guard_;
    cudaStream_t stream_;
};

}  // namespace moe_jit::cuda

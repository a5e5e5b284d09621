// Portability macros for code that both the host compiler and nvcc build.
#pragma once

#if defined(__CUDACC__)
#define MOE_JIT_HD __host__ __device__
#define MOE_JIT_INLINE __forceinline__
#else
#define MOE_JIT_HD
#define MOE_JIT_INLINE inline
#endif

#if defined(__CUDA_ARCH__)
#define MOE_JIT_DEVICE_PASS 1
#else
#define MOE_JIT_DEVICE_PASS 0
#endif

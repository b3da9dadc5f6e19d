// ASRKERN_HOST_DEVICE marks functions that run on the host and on the device. ASRKERN_UNROLL marks loops whose indices
// the device has to know. ASRKERN_CALLED marks functions that are called, not inlined: on the device a kernel with
// several copies would not fit into the instruction cache, on the host a rare call within them would cost their callers
// registers.
//
// A file that is compiled for one instruction set defines ASRKERN_ONE_ISA. There these functions are always inlined: of
// functions that are not, the linker would take one file's copy for all files. Those that are called are static for
// that.
#pragma once

#ifdef __CUDACC__
#define ASRKERN_HOST_DEVICE __host__ __device__
#define ASRKERN_UNROLL _Pragma("unroll")
#define ASRKERN_CALLED static __host__ __device__ __noinline__
#else
#ifdef ASRKERN_ONE_ISA
#define ASRKERN_HOST_DEVICE [[gnu::always_inline]]
#else
#define ASRKERN_HOST_DEVICE
#endif
#define ASRKERN_UNROLL
#define ASRKERN_CALLED [[gnu::noinline, maybe_unused]] static
#endif

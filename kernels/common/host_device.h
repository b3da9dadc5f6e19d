// Marks functions that run on the host and on the device, loops whose indices the device has to know (UNROLL), and
// functions that a kernel is not to have copies of wherever it calls them, since its code would not fit into the
// instruction cache (CALLED).
//
// A file that is compiled for one instruction set defines ASRKERN_ONE_ISA. There they are part of whatever calls them:
// the linker would take one file's copy of an inline function for all.
#pragma once

#ifdef __CUDACC__
#define ASRKERN_HOST_DEVICE __host__ __device__
#define ASRKERN_UNROLL _Pragma("unroll")
#define ASRKERN_CALLED __noinline__
#else
#ifdef ASRKERN_ONE_ISA
#define ASRKERN_HOST_DEVICE [[gnu::always_inline]]
#else
#define ASRKERN_HOST_DEVICE
#endif
#define ASRKERN_UNROLL
#define ASRKERN_CALLED
#endif

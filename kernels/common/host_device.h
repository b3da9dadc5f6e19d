// Marks functions that run on the host and on the device, loops whose indices the device has to know (UNROLL), and
// functions that a kernel is not to have copies of wherever it calls them, since its code would not fit into the
// instruction cache (CALLED).
#pragma once

#ifdef __CUDACC__
#define ASRKERN_HOST_DEVICE __host__ __device__
#define ASRKERN_UNROLL _Pragma("unroll")
#define ASRKERN_CALLED __noinline__
#else
#define ASRKERN_HOST_DEVICE
#define ASRKERN_UNROLL
#define ASRKERN_CALLED
#endif

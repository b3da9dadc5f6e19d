// Marks functions that run on the host and on the device; ASRKERN_CALLED those that a kernel is not to have copies of
// wherever it calls them: its code would not fit into the instruction cache.
#pragma once

#ifdef __CUDACC__
#define ASRKERN_HOST_DEVICE __host__ __device__
#define ASRKERN_CALLED __noinline__
#else
#define ASRKERN_HOST_DEVICE
#define ASRKERN_CALLED
#endif

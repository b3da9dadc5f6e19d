// Marks functions that run on the host and on the device, and loops whose indices the device has to know.
#pragma once

#ifdef __CUDACC__
#define ASRKERN_HOST_DEVICE __host__ __device__
#define ASRKERN_UNROLL _Pragma("unroll")
#else
#define ASRKERN_HOST_DEVICE
#define ASRKERN_UNROLL
#endif

// Functions that exist once for each vector unit.
#pragma once

// Marks a function that is compiled for several vector units, of which the loader takes the widest there is. Without
// contraction all give the same bits. It must not throw: GCC takes such a function for one that does not. It takes
// GNU's indirect functions, which are chosen before a thread sanitiser is up.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define ASRKERN_VECTOR_COPIES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ASRKERN_VECTOR_COPIES
#endif

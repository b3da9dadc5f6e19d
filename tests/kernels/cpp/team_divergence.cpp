// What cuda_block.h says of threads that part: "agree", "return" before a barrier, "shuffle" where others wait for the
// block.
#include <string>

#include "tests/kernels/cpp/cuda_block.h"

int main(int, char** arguments) {
  const std::string what = arguments[1];
  cuda_block::run(64, [&] {
    if (what == "return" && threadIdx.x == 5) return;
    if (what == "shuffle" && threadIdx.x < 5)
      __reduce_add_sync(~0u, 1);
    else
      __syncthreads();
    __syncthreads();
  });
  std::puts("done");
}

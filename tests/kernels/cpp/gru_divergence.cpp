// What emulated_cta.h says of a block that a device would not run: threads that "part" before a barrier or an "mma", a
// vector that is "misaligned"; of one that "agrees" nothing.
#include <string>

#include "tests/kernels/cpp/emulated_cta.h"

int main(int, char** arguments) {
  const std::string what = arguments[1];
  asrkern::run_block(0, [&] {
    float sums[4] = {};
    const uint32_t a[4] = {}, b[2] = {};
    alignas(16) static const char bytes[32] = {};
    if (what != "part" || threadIdx.x != 5) asrkern::cuda::__syncthreads();
    if (what != "mma" || threadIdx.x != 5) asrkern::cuda::mma(asrkern::Bf16(), sums, a, b);
    asrkern::cuda::load_exchanged<false>(bytes + (what == "misaligned" ? 4 : 0));
  });
  std::puts("done");
}

#include "kernels/rnn/cuda/gru_launch.cuh"

namespace asrkern::cuda {
namespace {

template <class T, int kConfig>
__global__ void __launch_bounds__(kGruThreads, 1)
    gru_backward_kernel(const __grid_constant__ GruBackward args, int first, int last) {
  extern __shared__ __align__(16) char shared[];
  GruCta<T, false, kConfig> cta(args, shared);
  gru_backward_walk<T>(cta, args, first, last);
  cta.finish();
}

template <class T>
constexpr GruKernels<false, GruBackward> kInstances = {gru_backward_kernel<T, 0>, gru_backward_kernel<T, 1>,
                                                       gru_backward_kernel<T, 2>};

const GruKernels<false, GruBackward>& instances(GruType type) {
  if (type == GruType::kBf16) return kInstances<Bf16>;
  return type == GruType::kHalf ? kInstances<Half> : kInstances<float>;
}

}  // namespace

int gru_backward_plan(GruType type, int hidden_size, int rows, int directions, GruPlan* plan) {
  return instances(type).plan(type, hidden_size, rows, directions, plan);
}

int gru_backward(GruType type, const GruBackward& args, void* stream) {
  return instances(type).launch(args, gru_backward_epochs(args.batch), stream);
}

}  // namespace asrkern::cuda

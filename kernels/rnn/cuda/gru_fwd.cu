#include "kernels/rnn/cuda/gru_launch.cuh"

namespace asrkern::cuda {
namespace {

template <class T, int kConfig>
__global__ void __launch_bounds__(kGruThreads, 1)
    gru_forward_kernel(const __grid_constant__ GruForward args, int first, int last) {
  extern __shared__ __align__(16) char shared[];
  GruCta<T, true, kConfig> cta(args, shared);
  gru_forward_walk<T>(cta, args, first, last);
  cta.finish();
}

template <class T>
constexpr GruKernels<true, GruForward> kInstances = {gru_forward_kernel<T, 0>, gru_forward_kernel<T, 1>,
                                                     gru_forward_kernel<T, 2>, gru_forward_kernel<T, 3>,
                                                     gru_forward_kernel<T, 4>, gru_forward_kernel<T, 5>};

const GruKernels<true, GruForward>& instances(GruType type) {
  if (type == GruType::kBf16) return kInstances<Bf16>;
  return type == GruType::kHalf ? kInstances<Half> : kInstances<float>;
}

}  // namespace

int gru_forward_plan(GruType type, int hidden_size, int rows, int directions, GruPlan* plan) {
  return instances(type).plan(type, hidden_size, rows, directions, plan);
}

int gru_forward(GruType type, const GruForward& args, void* stream) {
  return instances(type).launch(args, gru_forward_epochs(args.batch), stream);
}

}  // namespace asrkern::cuda

// What kernels/rnn/cuda/gru_launch.cuh asks CUDA for, on a device whose attributes are given: one line a launch.
//
//   gru_launches MULTIPROCESSORS SHARED_OF_A_BLOCK SHARED_OF_ALL REGISTERS COOPERATIVE  SIZE ROWS DIRECTIONS WIDE STEPS
//   [SIZE …]
//
// All layers are planned before the first is launched, as by several threads of a program.
#include <cstdio>
#include <cstdlib>
#include <map>

using cudaError_t = int;
using cudaStream_t = void*;
enum { cudaSuccess, cudaErrorNoKernelImageForDevice, cudaErrorTooLarge };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrCooperativeLaunch,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct dim3 {
  unsigned x;
  explicit dim3(unsigned x) : x(x) {}
};

struct Device {
  int multiprocessors, shared_of_block, shared_of_all, registers, cooperative;
} device;
std::map<const void*, int> allowed;

int cudaGetDevice(int* number) { return *number = 0; }

int cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  const int values[] = {9, device.cooperative, device.multiprocessors, device.shared_of_block};
  *value = values[which];
  return cudaSuccess;
}

template <class F>
int cudaFuncSetAttribute(F* kernel, int, int bytes) {
  if (bytes > device.shared_of_block) return cudaErrorTooLarge;
  allowed[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

// A kilobyte of each block's shared memory is CUDA's.
template <class F>
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F* kernel, int threads, size_t shared) {
  const int by_shared = device.shared_of_all / int(shared + 1024), by_registers = 65536 / (device.registers * threads);
  const bool fits = int(shared) <= allowed[reinterpret_cast<const void*>(kernel)];
  *blocks = !fits ? 0 : by_shared < by_registers ? by_shared : by_registers;
  return cudaSuccess;
}

template <class F>
int launch(const char* how, F* kernel, dim3 grid, dim3 threads, void** parameters, size_t shared) {
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, int(threads.x), shared);
  const int room = blocks * device.multiprocessors;
  std::printf("%s grid=%u room=%d shared=%zu epochs=%d-%d\n", how, grid.x, room, shared,
              *static_cast<int*>(parameters[1]), *static_cast<int*>(parameters[2]));
  return room && (*how != 'c' || int(grid.x) <= room) ? cudaSuccess : cudaErrorTooLarge;
}

template <class F>
int cudaLaunchCooperativeKernel(F* kernel, dim3 grid, dim3 threads, void** parameters, size_t shared, cudaStream_t) {
  return launch("cooperative", kernel, grid, threads, parameters, shared);
}

template <class F>
int cudaLaunchKernel(F* kernel, dim3 grid, dim3 threads, void** parameters, size_t shared, cudaStream_t) {
  return launch("plain", kernel, grid, threads, parameters, shared);
}

#include "kernels/rnn/cuda/gru_launch.cuh"

namespace {

using namespace asrkern;

template <class Args, int kConfig>
void kernel(Args, int, int) {
  // Different from its siblings, so that no linker makes them one.
  std::printf("%d\n", kConfig);
}

constexpr cuda::GruKernels<true, GruForward> kForward = {kernel<GruForward, 0>, kernel<GruForward, 1>,
                                                         kernel<GruForward, 2>, kernel<GruForward, 3>,
                                                         kernel<GruForward, 4>, kernel<GruForward, 5>};
constexpr cuda::GruKernels<false, GruBackward> kBackward = {kernel<GruBackward, 0>, kernel<GruBackward, 1>,
                                                            kernel<GruBackward, 2>};

template <class Args>
Args layer(int size, int directions, int steps) {
  Args args = {};
  args.hidden_size = size;
  args.directions = directions;
  args.batch.steps = steps;
  return args;
}

void expect(int error, const char* what) {
  if (!error) return;
  std::printf("error of %s\n", what);
  std::exit(1);
}

}  // namespace

int main(int count, char** arguments) {
  const auto number = [&](int i) { return std::atoi(arguments[i]); };
  device = {number(1), number(2), number(3), number(4), number(5)};
  std::vector<GruForward> forward;
  std::vector<GruBackward> backward;
  std::vector<cuda::GruType> types;
  for (int i = 6; i + 4 < count; i += 5) {
    const int size = number(i), rows = number(i + 1), directions = number(i + 2), steps = number(i + 4);
    types.push_back(number(i + 3) ? cuda::GruType::kFloat : cuda::GruType::kBf16);
    forward.push_back(layer<GruForward>(size, directions, steps));
    expect(kForward.plan(types.back(), size, rows, directions, &forward.back().plan), "forward's plan");
    backward.push_back(layer<GruBackward>(size, directions, steps));
    expect(kBackward.plan(types.back(), size, rows, directions, &backward.back().plan), "backward's plan");
  }
  for (size_t i = 0; i < types.size(); ++i) {
    std::printf("layer\n");
    expect(kForward.launch(forward[i], gru_forward_epochs(forward[i].batch), nullptr), "forward's launch");
    std::printf("back\n");
    expect(kBackward.launch(backward[i], gru_backward_epochs(backward[i].batch), nullptr), "backward's launch");
  }
}

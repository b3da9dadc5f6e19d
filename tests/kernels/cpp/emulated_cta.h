// Runs kernels/rnn/cuda/gru_cta.cuh on the CPU, with emulated/kernels/rnn/cuda/ptx.cuh in the device's place.
#pragma once

#include <cstdio>
#include <functional>

#include "kernels/rnn/cuda/gru_cta.cuh"

namespace asrkern {

// makecontext passes integers.
inline void run_fiber(unsigned low, unsigned high) {
  (*reinterpret_cast<const std::function<void()>*>(uintptr_t(high) << 32 | low))();
  cuda::this_block->leave(cuda::FiberState::kEnded);
}

// Runs body() in each thread of a block, in an order that is not that of their numbers.
inline void run_block(int index, const std::function<void()>& body) {
  using cuda::FiberState;
  cuda::EmulatedBlock block;
  block.index = unsigned(index);
  block.fibers = std::vector<cuda::Fiber>(kGruThreads);
  block.warps = std::vector<cuda::Warp>(kGruWarps);
  cuda::this_block = &block;
  for (cuda::Fiber& fiber : block.fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    const uintptr_t address = reinterpret_cast<uintptr_t>(&body);
    makecontext(&fiber.context, reinterpret_cast<void (*)()>(run_fiber), 2, unsigned(address), unsigned(address >> 32));
  }
  const auto count = [&](int begin, int end, FiberState state) {
    int found = 0;
    for (int i = begin; i < end; ++i) found += block.fibers[i].state == state;
    return found;
  };
  const auto wake = [&](int begin, int end) {
    for (int i = begin; i < end; ++i) block.fibers[i].state = FiberState::kRuns;
  };
  while (count(0, kGruThreads, FiberState::kEnded) < kGruThreads) {
    bool moved = false;
    for (int i = 0; i < kGruThreads; ++i) {
      block.current = unsigned(i * 77 + 13) % kGruThreads;
      if (block.fibers[block.current].state != FiberState::kRuns) continue;
      swapcontext(&block.scheduler, &block.fibers[block.current].context);
      moved = true;
    }
    for (int begin = 0; begin < kGruThreads; begin += kLanes)
      if (count(begin, begin + kLanes, FiberState::kWaitsForWarp) == kLanes) {
        wake(begin, begin + kLanes);
        moved = true;
      }
    if (count(0, kGruThreads, FiberState::kWaitsForBlock) == kGruThreads) {
      wake(0, kGruThreads);
      moved = true;
    }
    if (!moved) {
      std::fprintf(stderr, "a barrier that not all threads reach\n");
      std::abort();
    }
  }
}

template <class T, bool kForward, int kConfig, class Args>
void emulate(const Args& args, int index, int first, int last) {
  // What nobody has written is NaN.
  std::vector<Words> shared(args.plan.shared_bytes / sizeof(Words), Words{{~0u, ~0u, ~0u, ~0u}});
  run_block(index, [&] {
    cuda::GruCta<T, kForward, kConfig> cta(args, reinterpret_cast<char*>(shared.data()));
    if constexpr (kForward)
      gru_forward_walk<T>(cta, args, first, last);
    else
      gru_backward_walk<T>(cta, args, first, last);
    cta.finish();
  });
}

template <class T, bool kForward, class Args, int kConfig = 0>
void emulate_block(const Args& args, int index, int first, int last) {
  if (args.plan.config == kConfig) return emulate<T, kForward, kConfig>(args, index, first, last);
  if constexpr (kConfig + 1 < gru_configs(kForward))
    emulate_block<T, kForward, Args, kConfig + 1>(args, index, first, last);
}

}  // namespace asrkern

// Threads for one call. A pool that outlives calls would not survive a fork.
#pragma once

#include <exception>
#include <thread>
#include <vector>

#include "kernels/common/cpu/team.h"

namespace asrkern {

// A task for each thread; where there is no room for more of them, the calling thread does what is left.
inline cpu::ThreadPool started_threads(int threads) {
  return {threads, [](int64_t tasks, void (*body)(int64_t, int64_t, void*), void* context) {
            std::vector<std::thread> others;
            int64_t begun = 1;
            try {
              others.reserve(size_t(tasks));
              for (; begun < tasks; ++begun) others.emplace_back(body, begun, begun + 1, context);
            } catch (const std::exception&) {
            }
            body(0, 1, context);
            if (begun < tasks) body(begun, tasks, context);
            for (std::thread& other : others) other.join();
          }};
}

}  // namespace asrkern

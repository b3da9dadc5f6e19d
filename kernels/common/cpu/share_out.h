// Items of unequal size among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#include "kernels/common/cpu/team.h"

namespace asrkern::cpu {

// Calls f(item) for every item on at most `threads` of the pool's threads (0: all). A thread takes the next item when
// it is free. Rethrows the first exception.
template <class F>
void share_out(const ThreadPool& pool, int64_t items, int64_t threads, const F& f) {
  const int64_t workers = threads > 0 && threads < pool.threads ? threads : pool.threads;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  parallel_for(pool, std::min(workers, items), [&](int64_t) {
    try {
      for (int64_t item; !failed && (item = next.fetch_add(1)) < items;) f(item);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace asrkern::cpu

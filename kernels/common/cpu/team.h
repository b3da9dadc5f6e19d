// Threads for kernels. Kernels do not know whose threads they are: csrc passes torch's pool.
#pragma once

#include <cstdint>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace asrkern::cpu {

struct ThreadPool {
  int threads;
  // Calls body(begin, end, context) over disjoint chunks that cover [0, tasks), at most `threads` of them at once. All
  // chunks but the last have the same size. One chunk may have all tasks: in a nested call, or in a smaller pool.
  void (*run)(int64_t tasks, void (*body)(int64_t begin, int64_t end, void* context), void* context);
};

namespace {

// f(task) for every task in [0, tasks).
template <class F>
void parallel_for(const ThreadPool& pool, int64_t tasks, const F& f) {
  if (tasks <= 0) return;
  pool.run(
      tasks,
      [](int64_t begin, int64_t end, void* context) {
        for (int64_t task = begin; task < end; ++task) (*static_cast<const F*>(context))(task);
      },
      const_cast<F*>(&f));
}

// Spins, since a step of a recurrence lasts microseconds; yields if a member is held up (more threads than cores).
class Barrier {
 public:
  void wait(int members) {
    if (members == 1) return;
    const int phase = __atomic_load_n(&phase_, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == members) {
      __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
      __atomic_store_n(&phase_, phase + 1, __ATOMIC_RELEASE);
      return;
    }
    for (int spins = 0; __atomic_load_n(&phase_, __ATOMIC_ACQUIRE) == phase; ++spins) relax(spins);
  }

  static void relax(int spins) {
    if (spins > 2000) {
      std::this_thread::yield();
      return;
    }
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

 private:
  alignas(64) int arrived_ = 0;
  alignas(64) int phase_ = 0;
};

// Calls f(member, members) once per thread that really comes: a barrier for more threads than come would never open.
// The first chunk's size tells how many come.
template <class F>
void run_team(const ThreadPool& pool, int wanted, const F& f) {
  struct Context {
    const F& f;
    int wanted;
    alignas(64) int64_t chunk;
  } context{f, wanted, 0};
  pool.run(
      wanted,
      [](int64_t begin, int64_t end, void* opaque) {
        Context& team = *static_cast<Context*>(opaque);
        if (begin == 0) __atomic_store_n(&team.chunk, end, __ATOMIC_RELEASE);
        int64_t chunk;
        for (int spins = 0; (chunk = __atomic_load_n(&team.chunk, __ATOMIC_ACQUIRE)) == 0; ++spins)
          Barrier::relax(spins);
        team.f(int(begin / chunk), int((team.wanted + chunk - 1) / chunk));
      },
      &context);
}

}  // namespace
}  // namespace asrkern::cpu

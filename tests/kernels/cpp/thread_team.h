// A team of threads of the CPU, for tests of what a block of a GPU runs.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace asrkern {

class ThreadTeam {
 public:
  // body(team) on each of `size` threads.
  template <class F>
  static void run(int32_t size, const F& body) {
    Shared shared(size);
    std::vector<std::thread> threads;
    for (int32_t rank = 0; rank < size; ++rank)
      threads.emplace_back([&shared, &body, rank] {
        ThreadTeam team(shared, rank);
        body(team);
      });
    for (std::thread& thread : threads) thread.join();
  }

  int32_t rank() const { return rank_; }
  int32_t size() const { return int32_t(shared_.parts[0].size()); }
  void sync() { shared_.barrier.arrive_and_wait(); }

  // As on a GPU: one barrier, and two places for the parts in turns.
  template <class T, class Op>
  T reduce(const T& value, const Op& op) {
    std::vector<Part>& parts = exchange(value);
    T result = get<T>(parts[0]);
    for (int32_t i = 1; i < size(); ++i) result = op(result, get<T>(parts[i]));
    return result;
  }

  int32_t sum(int32_t count) {
    return reduce(count, [](int32_t a, int32_t b) { return a + b; });
  }

  int32_t scan(int32_t count, int32_t& all) {
    std::vector<Part>& parts = exchange(count);
    int32_t before = 0;
    all = 0;
    for (int32_t i = 0; i < size(); ++i) {
      if (i == rank_) before = all;
      all += get<int32_t>(parts[i]);
    }
    return before;
  }

  void prefetch(const void*) {}

 private:
  struct Part {
    char bytes[32];
  };

  struct Shared {
    explicit Shared(int32_t size) : barrier(size), parts{std::vector<Part>(size), std::vector<Part>(size)} {}
    std::barrier<> barrier;
    std::vector<Part> parts[2];
  };

  ThreadTeam(Shared& shared, int32_t rank) : shared_(shared), rank_(rank) {}

  template <class T>
  static T get(const Part& part) {
    T value;
    std::memcpy(&value, part.bytes, sizeof value);
    return value;
  }

  template <class T>
  std::vector<Part>& exchange(const T& value) {
    static_assert(sizeof(T) <= sizeof(Part));
    std::vector<Part>& parts = shared_.parts[turn_ ^= 1];
    std::memcpy(parts[rank_].bytes, &value, sizeof value);
    sync();
    return parts;
  }

  Shared& shared_;
  int32_t rank_;
  int turn_ = 0;
};

}  // namespace asrkern

// The collectives of a block (kernels/common/cuda/block_team.cuh) against sums over arrays. Prints "passed".
#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/kernels/cpp/cuda_block.h"
// After what stands in for CUDA.
#include "kernels/common/cuda/block_team.cuh"

using asrkern::cuda::BlockTeam;

namespace {

struct Extremes {
  float best, worst;
  double sum;
};

Extremes merged(const Extremes& a, const Extremes& b) {
  return {a.best > b.best ? a.best : b.best, a.worst < b.worst ? a.worst : b.worst, a.sum + b.sum};
}

void expect(bool good, const char* what, int threads, int round) {
  if (good) return;
  std::printf("wrong: %s, %d threads, round %d\n", what, threads, round);
  std::exit(1);
}

void check(int threads, int rounds) {
  std::mt19937 random(threads);
  std::vector<std::vector<int32_t>> values(rounds, std::vector<int32_t>(threads));
  for (auto& row : values)
    for (int32_t& value : row) value = int32_t(random() % 2001) - 1000;
  std::vector<int32_t> seen(threads, -1);
  BlockTeam::Parts parts;
  cuda_block::run(threads, [&] {
    BlockTeam team(parts);
    for (int round = 0; round < rounds; ++round) {
      const std::vector<int32_t>& row = values[round];
      const int32_t mine = row[team.rank()];
      int32_t before = 0, sum = 0;
      Extremes expected{-1e9f, 1e9f, 0};
      for (int i = 0; i < threads; ++i) {
        if (i == team.rank()) before = sum;
        sum += row[i];
        expected = merged(expected, {float(row[i]), float(row[i]), double(row[i])});
      }
      // One after the other without a barrier between, in an order that changes.
      for (int k = 0; k < 3; ++k) {
        const int which = (k + round) % 3;
        if (which == 0) {
          expect(team.sum(mine) == sum, "sum", threads, round);
        } else if (which == 1) {
          int32_t all = -1;
          expect(team.scan(mine, all) == before && all == sum, "scan", threads, round);
        } else {
          const Extremes found = team.reduce(Extremes{float(mine), float(mine), double(mine)}, merged);
          expect(found.best == expected.best && found.worst == expected.worst && found.sum == expected.sum, "reduce",
                 threads, round);
        }
      }
      // A collective is a barrier, both ways.
      seen[team.rank()] = round;
      team.sum(0);
      expect(seen[(team.rank() + 17) % threads] == round, "barrier", threads, round);
      team.sum(0);
    }
  });
}

}  // namespace

int main() {
  for (const int threads : {32, 96}) check(threads, 3);
  std::printf("passed\n");
}

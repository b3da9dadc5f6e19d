// How the CUDA kernels of the GRU divide a layer: which thread blocks own which hidden units, and where their slice of
// W_hh is kept.
//
// A team of thread blocks walks the steps of one direction, over a group of the rows. Each block owns `units` hidden
// units: forward it computes their three gates, a slice of 3·units rows of W_hh [3H, H]; backward the gradient of
// their state, `units` rows of W_hhᵀ [H, 3H]. Its eight warps share a slice in m_groups parts of the tiles of 16 rows
// and 8 / m_groups parts of the blocks of k. A warp keeps its first blocks of k in registers, the next in shared
// memory, and streams what remains from L2 at every step, through a ring of blocks in shared memory.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"
#include "kernels/rnn/mma_fragments.h"

namespace asrkern {

constexpr int kGruWarps = 8, kGruThreads = kGruWarps * kLanes;
constexpr int kGruChunk = 32;  // rows of the batch that are multiplied at once
constexpr int kGruColumnTiles = kGruChunk / kTileColumns;

// One instance of a kernel.
struct GruConfig {
  int m_groups;      // parts that the tiles of a slice are divided into
  int tiles;         // tiles of 16 rows that each warp has
  int in_registers;  // blocks of k that a warp keeps in registers
  int ahead;         // how many blocks of k a full chunk of h is fetched in advance
  int ring;          // blocks of k in the ring

  ASRKERN_HOST_DEVICE constexpr int k_groups() const { return kGruWarps / m_groups; }
  ASRKERN_HOST_DEVICE constexpr int slice_rows() const { return kTileRows * tiles * m_groups; }
  ASRKERN_HOST_DEVICE constexpr int units(bool forward) const { return slice_rows() / (forward ? 3 : 1); }
  // Bytes of one block of k of all warps, if they keep it in shared memory; those of the partial sums; of the biases.
  ASRKERN_HOST_DEVICE constexpr int block_bytes() const { return kGruWarps * tiles * 2 * kLanes * 16; }
  ASRKERN_HOST_DEVICE constexpr int sum_bytes() const { return k_groups() * slice_rows() * kGruChunk * 4; }
  ASRKERN_HOST_DEVICE constexpr int bias_bytes(bool forward) const { return forward ? units(true) * 4 * 4 : 0; }
};

// The instances, the smallest slices first. The last one keeps no weights: it is for one launch a step.
ASRKERN_HOST_DEVICE constexpr int gru_configs(bool forward) { return forward ? 6 : 3; }

// wide: values have four bytes, and are multiplied as pairs of tf32, which takes more registers.
ASRKERN_HOST_DEVICE constexpr GruConfig gru_config(bool forward, bool wide, int index) {
  constexpr GruConfig kForward[] = {{1, 1, 4, 2, 2}, {1, 2, 3, 1, 2}, {1, 3, 2, 1, 2},
                                    {2, 2, 3, 1, 2}, {2, 3, 1, 1, 2}, {1, 3, 0, 1, 4}};
  constexpr GruConfig kForwardWide[] = {{1, 1, 4, 2, 2}, {1, 2, 4, 1, 2}, {1, 3, 2, 1, 2},
                                        {2, 2, 3, 1, 2}, {2, 3, 1, 0, 2}, {1, 3, 0, 1, 4}};
  constexpr GruConfig kBackward[] = {{1, 1, 6, 1, 2}, {1, 2, 2, 1, 2}, {1, 1, 0, 2, 8}};
  constexpr GruConfig kBackwardWide[] = {{1, 1, 8, 1, 2}, {1, 2, 3, 1, 2}, {1, 1, 0, 1, 8}};
  return forward ? (wide ? kForwardWide : kForward)[index] : (wide ? kBackwardWide : kBackward)[index];
}

struct GruDevice {
  int multiprocessors;
  int shared_bytes;  // that one thread block may ask for
};

struct GruPlan {
  int config;
  bool persistent;  // all steps in one cooperative launch; else one launch a step
  int at_once;      // directions that run at once; 1 where the weights of both do not fit
  int units, ctas;  // units of each thread block, thread blocks of each team
  int groups;       // teams of each direction, each with its share of the rows
  int group_rows;   // rows of a team, rounded up to whole chunks
  int blocks;       // of k
  int in_shared;    // blocks of k that a warp keeps in shared memory
  int streamed;     // blocks of k that the busiest warp streams at every step
  int shared_bytes;

  int grid() const { return at_once * groups * ctas; }
};

inline int divide_up(int64_t a, int64_t b) { return int((a + b - 1) / b); }
ASRKERN_HOST_DEVICE constexpr int at_most(int a, int b) { return a < b ? a : b; }

// The plan with one given instance. `groups` is 0 where its thread blocks cannot all run at once.
inline GruPlan gru_plan_of(int config, bool forward, int hidden_size, int rows, int at_once, int value_bytes,
                           const GruDevice& device) {
  const GruConfig c = gru_config(forward, value_bytes == 4, config);
  GruPlan plan = {};
  plan.config = config;
  plan.persistent = c.in_registers > 0;
  plan.at_once = at_once;
  plan.units = c.units(forward);
  plan.ctas = divide_up(hidden_size, plan.units);
  plan.blocks = divide_up(int64_t(forward ? 1 : 3) * hidden_size * value_bytes, kBlockBytes);
  const int teams_that_fit = device.multiprocessors / (at_once * plan.ctas);
  plan.groups = plan.persistent ? at_most(teams_that_fit, divide_up(rows, kTileColumns)) : divide_up(rows, kGruChunk);
  plan.group_rows = plan.groups ? divide_up(divide_up(rows, plan.groups), kGruChunk) * kGruChunk : 0;
  const int fixed_bytes = c.sum_bytes() + c.bias_bytes(forward);
  const int room = (device.shared_bytes - fixed_bytes) / c.block_bytes();
  const int rest = divide_up(plan.blocks, c.k_groups()) - c.in_registers;
  plan.in_shared = !plan.persistent || rest <= 0 ? 0 : rest <= room ? rest : room > c.ring ? room - c.ring : 0;
  plan.streamed = rest > plan.in_shared ? rest - plan.in_shared : 0;
  plan.shared_bytes = fixed_bytes + (plan.in_shared + (plan.streamed > 0 ? c.ring : 0)) * c.block_bytes();
  return plan;
}

// Whether a persistent kernel streams little enough at every step: at most half of a slice, or two thirds if no other
// direction runs at the same time.
inline bool streams_little(const GruPlan& plan, int of_warp) {
  return plan.streamed * (plan.at_once > 1 ? 4 : 3) <= of_warp * 2;
}

// The persistent kernel with the smallest slices whose thread blocks all run at once; else one launch a step.
inline GruPlan gru_plan(bool forward, int hidden_size, int rows, int directions, int value_bytes,
                        const GruDevice& device) {
  const int steps = gru_configs(forward) - 1;
  for (int at_once = directions; at_once > 0; --at_once)
    for (int config = 0; config < steps; ++config) {
      const GruPlan plan = gru_plan_of(config, forward, hidden_size, rows, at_once, value_bytes, device);
      if (plan.groups == 0 || plan.shared_bytes > device.shared_bytes) continue;
      const int of_warp = divide_up(plan.blocks, gru_config(forward, value_bytes == 4, config).k_groups());
      if (streams_little(plan, of_warp)) return plan;
      break;  // larger slices stream more
    }
  return gru_plan_of(steps, forward, hidden_size, rows, directions, value_bytes, device);
}

// Up to so many rows the CUDA kernels are taken with one launch a step. Beyond, or where a launch streams more weights
// than the work hides, cuDNN's matrix products win. Not measured yet.
constexpr int kGruRowsOfSteps = 64;

// The row of the weight matrix that is row `row` of the slice of a block whose units begin at `first`, or -1.
ASRKERN_HOST_DEVICE inline int gru_weight_row(bool forward, int hidden_size, int units, int first, int row) {
  const int gate = forward ? row / units : 0, unit = first + row - gate * units;
  if (gate > (forward ? 2 : 0) || (!forward && row >= units) || unit >= hidden_size) return -1;
  return gate * hidden_size + unit;
}

// The number of the index-th block of k-group `group` of `groups`.
ASRKERN_HOST_DEVICE inline int gru_block(int group, int groups, int index) { return group + index * groups; }

}  // namespace asrkern

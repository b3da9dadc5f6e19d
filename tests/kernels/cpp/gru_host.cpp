// The CUDA kernels' GRU on the CPU: one thread plays each thread block, in plain C++ that Python calls through ctypes.
//
// What is the device's own (registers, shared memory, the instructions) is replaced; everything else is the code that
// the kernels run: kernels/rnn/gru_walk.h and what it includes.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/rnn/gru_walk.h"
#include "tests/kernels/cpp/software_mma.h"
#ifdef ASRKERN_EMULATED
#include "tests/kernels/cpp/emulated_cta.h"
#endif

namespace {

using namespace asrkern;

template <class T, bool kForward>
class HostCta {
 public:
  template <class X>
  struct PerPair {
    std::vector<X> values = std::vector<X>(48 * kGruChunk);
    X& operator[](int slot) { return values[slot]; }
  };

  template <class Args>
  HostCta(const Args& a, int block)
      : place_(a.plan, a.first_direction, block),
        config_(gru_config(kForward, sizeof(T) == 4, a.plan.config)),
        plan_(a.plan),
        size_(a.hidden_size),
        units_(std::min(a.plan.units, size_ - place_.first_unit)),
        arrivals_(a.arrivals[place_.team * kArrivalStride]),
        weight_(static_cast<const T*>(a.weight[place_.direction])),
        sums_(config_.sum_bytes() / 4, std::numeric_limits<float>::quiet_NaN()) {
    if constexpr (kForward)
      for (int i = 0; i < units_ * 4; ++i)
        biases_.push_back(gru_bias<T>(a, place_.direction, place_.first_unit + i / 4, i % 4));
  }

  int direction() const { return place_.direction; }
  int group() const { return place_.group; }
  int first_unit() const { return place_.first_unit; }
  float bias(int unit, int part) const { return biases_[unit * 4 + part]; }
  void sync() const {}

  template <class F>
  void each_pair(int rows, const F& f) const {
    for (int row = 0; row < rows; ++row)
      for (int unit = 0; unit < units_; ++unit) f(row * units_ + unit, unit, row);
  }

  void arrive() {
    arrived_ += plan_.ctas;
    std::atomic_ref<uint32_t>(arrivals_).fetch_add(1, std::memory_order_release);
  }

  void wait() const {
    if (!plan_.persistent) return;
    while (std::atomic_ref<uint32_t>(arrivals_).load(std::memory_order_acquire) < arrived_) std::this_thread::yield();
  }

  void multiply(const T* from, int begin, int rows) {
    std::fill(sums_.begin(), sums_.end(), std::numeric_limits<float>::quiet_NaN());
    const int64_t k_size = int64_t(kForward ? 1 : 3) * size_;
    const bool whole = k_size % kVectorOf<T> == 0 && reinterpret_cast<uintptr_t>(weight_) % 16 == 0;
    for (int warp = 0; warp < kGruWarps; ++warp) {
      const int m_group = warp % config_.m_groups, k_group = warp / config_.m_groups, groups = config_.k_groups();
      for (int m = 0; m < config_.tiles; ++m) {
        const int first_row = (m_group * config_.tiles + m) * kTileRows;
        for (int n = 0; n * kTileColumns < rows; ++n) {
          float sums[32][4] = {};
          for (int i = 0; gru_block(k_group, groups, i) < plan_.blocks; ++i)
            multiply_block(first_row, from, begin + n * kTileColumns, gru_block(k_group, groups, i), k_size, whole,
                           sums);
          float* mine = sums_.data() + k_group * config_.slice_rows() * kGruChunk;
          for (int index = 0; index < 32; ++index)
            for (int i = 0; i < 4; ++i) {
              const Lane lane(index);
              mine[sum_index(first_row + lane.sum_row(i), n * kTileColumns + lane.sum_column(i))] = sums[index][i];
            }
        }
      }
    }
  }

  float sum(int slice_row, int row) const {
    float total = 0;
    for (int group = 0; group < config_.k_groups(); ++group)
      total += sums_[group * config_.slice_rows() * kGruChunk + sum_index(slice_row, row)];
    return total;
  }

 private:
  void multiply_block(int first_row, const T* from, int first_column, int block, int64_t k_size, bool whole,
                      float (&sums)[32][4]) const {
    Words low[32], high[32], column[32];
    for (int index = 0; index < 32; ++index) {
      const Lane lane(index);
      const int64_t k = int64_t(block) * kBlockOf<T> + lane.k<T>();
      const auto row = [&](int part) {
        return gru_weight_row(kForward, size_, plan_.units, place_.first_unit, first_row + lane.row(part));
      };
      low[index] = load_vector(weight_, k_size, row(0), k, whole);
      high[index] = load_vector(weight_, k_size, row(1), k, whole);
      const int64_t place = (int64_t(block) * plan_.group_rows + first_column + lane.column()) * kBlockOf<T>;
      column[index] = *reinterpret_cast<const Words*>(from + place + lane.k<T>());
    }
    for (int step = 0; step < kStepsOfBlock; ++step) {
      uint32_t a[32][4], b[32][2];
      for (int index = 0; index < 32; ++index) {
        for (int i = 0; i < 4; ++i) a[index][i] = a_register(low[index], high[index], step, i);
        for (int i = 0; i < 2; ++i) b[index][i] = b_register(column[index], step, i);
      }
      software_mma<T>(sums, a, b);
    }
  }

  GruPlace place_;
  GruConfig config_;
  GruPlan plan_;
  int size_, units_;
  uint32_t arrived_ = 0;
  uint32_t& arrivals_;
  const T* weight_;
  std::vector<float> sums_, biases_;
};

// One thread block's epochs from first to last - 1.
template <class T, bool kForward, class Args>
void walk_block(const Args& args, int block, int first, int last) {
#ifdef ASRKERN_EMULATED
  emulate_block<T, kForward>(args, block, first, last);
#else
  HostCta<T, kForward> cta(args, block);
  if constexpr (kForward)
    gru_forward_walk<T>(cta, args, first, last);
  else
    gru_backward_walk<T>(cta, args, first, last);
#endif
}

// What a batch's GruBatch points to.
struct Order {
  std::vector<int32_t> order, lengths, active, offsets;

  Order(const int32_t* given, int rows, int steps) : order(rows), lengths(rows) {
    for (int i = 0; i < rows; ++i) {
      const int place = sorted_place(given, rows, i);
      order[place] = i;
      lengths[place] = given[i];
    }
    for (int t = 0; t < steps; ++t) {
      active.push_back(active_rows(lengths.data(), rows, t));
      offsets.push_back(frames_before(lengths.data(), rows, t));
    }
  }
};

// Runs walk(args, block, first epoch, last) for all blocks: in threads if they wait for each other, otherwise one by
// one.
template <class Args, class Walk>
void run_grid(Args args, int epochs, const Walk& walk) {
  const int grid = args.plan.grid();
  for (args.first_direction = 0; args.first_direction < args.directions; args.first_direction += args.plan.at_once) {
    if (!args.plan.persistent) {
      for (int epoch = 0; epoch < epochs; ++epoch)
        for (int block = grid - 1; block >= 0; --block) walk(args, block, epoch, epoch + 1);
      continue;
    }
    std::vector<std::thread> threads;
    for (int block = 0; block < grid; ++block) threads.emplace_back([&, block] { walk(args, block, 0, epochs); });
    for (std::thread& thread : threads) thread.join();
  }
}

// 16-byte aligned, as the device's allocations are.
struct Memory {
  std::vector<Words> exchange;
  std::vector<uint32_t> arrivals;
  std::vector<float> state;

  template <class T, class Args>
  void give(Args& args) {
    const int teams = gru_teams(args.plan, args.directions);
    exchange.assign(teams * exchange_values<T>(args.plan) * sizeof(T) / sizeof(Words), Words{});
    arrivals.assign(teams * kArrivalStride, 0);
    state.assign(int64_t(args.directions) * args.batch.rows * args.hidden_size, 0.0f);
    args.exchange = exchange.data();
    args.arrivals = arrivals.data();
    args.state = state.data();
  }
};

// Beside the pointers: what Python passes for both passes. config < 0 leaves it and at_once to the plan.
struct Shape {
  int32_t rows, steps, packed, batch_first, hidden_size, directions, wide, multiprocessors, shared_bytes, config,
      at_once;
  int64_t frames;
};

GruPlan plan_of(bool forward, const Shape& shape) {
  const GruDevice device{shape.multiprocessors, shape.shared_bytes};
  const int bytes = shape.wide ? 4 : 2;
  if (shape.config < 0) return gru_plan(forward, shape.hidden_size, shape.rows, shape.directions, bytes, device);
  return gru_plan_of(shape.config, forward, shape.hidden_size, shape.rows, shape.at_once, bytes, device);
}

template <class Args>
void set_shape(Args& args, const Shape& shape, const Order& order, bool forward) {
  args.batch = {shape.rows,         shape.steps,          shape.packed != 0,   shape.batch_first != 0,
                order.order.data(), order.lengths.data(), order.active.data(), order.offsets.data()};
  args.plan = plan_of(forward, shape);
  args.hidden_size = shape.hidden_size;
  args.directions = shape.directions;
  args.frames = shape.frames;
}

template <class T>
void forward(GruForward args) {
  Memory memory;
  memory.give<T>(args);
  run_grid(args, gru_forward_epochs(args.batch), walk_block<T, true, GruForward>);
}

template <class T>
void backward(GruBackward args) {
  Memory memory;
  memory.give<T>(args);
  run_grid(args, gru_backward_epochs(args.batch), walk_block<T, false, GruBackward>);
}

template <class T>
void product(const T* a, const T* b, int k_size, float* sums) {
  for (int index = 0; index < 32; ++index)
    for (int i = 0; i < 4; ++i) sums[index * 4 + i] = 0;
  float of_lanes[32][4] = {};
  for (int block = 0; block * kBlockOf<T> < k_size; ++block)
    for (int step = 0; step < kStepsOfBlock; ++step) {
      uint32_t registers_a[32][4], registers_b[32][2];
      for (int index = 0; index < 32; ++index) {
        const Lane lane(index);
        const int64_t k = block * kBlockOf<T> + lane.k<T>();
        const Words low = load_vector(a, k_size, lane.row(0), k, false);
        const Words high = load_vector(a, k_size, lane.row(1), k, false);
        const Words column = load_vector(b, k_size, lane.column(), k, false);
        for (int i = 0; i < 4; ++i) registers_a[index][i] = a_register(low, high, step, i);
        for (int i = 0; i < 2; ++i) registers_b[index][i] = b_register(column, step, i);
      }
      software_mma<T>(of_lanes, registers_a, registers_b);
    }
  for (int index = 0; index < 32; ++index)
    for (int i = 0; i < 4; ++i)
      sums[Lane(index).sum_row(i) * kTileColumns + Lane(index).sum_column(i)] = of_lanes[index][i];
}

}  // namespace

extern "C" {

// a: [16, k], b: [8, k] → sums: [16, 8] = a bᵀ.
void fragment_product(int wide, const void* a, const void* b, int k_size, float* sums) {
  if (wide)
    product(static_cast<const float*>(a), static_cast<const float*>(b), k_size, sums);
  else
    product(static_cast<const Bf16*>(a), static_cast<const Bf16*>(b), k_size, sums);
}

int sum_place(int row, int column) { return sum_index(row, column); }

// result: config, persistent, at_once, units, ctas, groups, group_rows, blocks, in_shared, streamed, shared_bytes; then
// of its config: m_groups, tiles, in_registers, ahead, ring.
void plan(int forward, const Shape* shape, int32_t* result) {
  const GruPlan p = plan_of(forward, *shape);
  const GruConfig c = gru_config(forward, shape->wide, p.config);
  const int32_t values[] = {p.config,     p.persistent,   p.at_once,   p.units,    p.ctas,         p.groups,
                            p.group_rows, p.blocks,       p.in_shared, p.streamed, p.shared_bytes, c.m_groups,
                            c.tiles,      c.in_registers, c.ahead,     c.ring};
  std::copy(std::begin(values), std::end(values), result);
}

int weight_row(int forward, int hidden_size, int units, int first, int row) {
  return gru_weight_row(forward, hidden_size, units, first, row);
}

// pointers: gates_x, weight ×2, bias_ih ×2, bias_hh ×2, h0, output, h_n, reserve; lengths: [rows].
void gru_forward(const Shape* shape, const int32_t* lengths, void* const* pointers) {
  const Order order(lengths, shape->rows, shape->steps);
  GruForward args = {};
  set_shape(args, *shape, order, true);
  args.gates_x = pointers[0];
  for (int d = 0; d < 2; ++d) {
    args.weight[d] = pointers[1 + d];
    args.bias_ih[d] = pointers[3 + d];
    args.bias_hh[d] = pointers[5 + d];
  }
  args.h0 = pointers[7];
  args.output = pointers[8];
  args.h_n = pointers[9];
  args.reserve = pointers[10];
  shape->wide ? forward<float>(args) : forward<Bf16>(args);
}

// pointers: transposed weight ×2, h0, output, reserve, grad_output, grad_h_n, grad_h0, grad_gates_x, grad_gates_h,
// h_before.
void gru_backward(const Shape* shape, const int32_t* lengths, void* const* pointers) {
  const Order order(lengths, shape->rows, shape->steps);
  GruBackward args = {};
  set_shape(args, *shape, order, false);
  args.weight[0] = pointers[0];
  args.weight[1] = pointers[1];
  args.h0 = pointers[2];
  args.output = pointers[3];
  args.reserve = pointers[4];
  args.grad_output = pointers[5];
  args.grad_h_n = pointers[6];
  args.grad_h0 = pointers[7];
  args.grad_gates_x = pointers[8];
  args.grad_gates_h = pointers[9];
  args.h_before = pointers[10];
  shape->wide ? backward<float>(args) : backward<Bf16>(args);
}
}

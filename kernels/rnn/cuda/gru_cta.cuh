// A thread block that walks a GRU (kernels/rnn/gru_walk.h says what it has to offer).
#pragma once

#include "kernels/rnn/cuda/mma.cuh"
#include "kernels/rnn/gru_walk.h"

namespace asrkern::cuda {

__device__ inline int thread_index() { return computed_again(threadIdx.x); }

template <class T, bool kForward, int kConfig>
class GruCta {
 public:
  static constexpr GruConfig kPlan = gru_config(kForward, sizeof(T) == 4, kConfig);
  static constexpr int kUnits = kPlan.units(kForward), kTiles = kPlan.tiles, kGroups = kPlan.k_groups();
  static constexpr int kPairs = (kUnits * kGruChunk + kGruThreads - 1) / kGruThreads;
  static constexpr int kKept = kPlan.in_registers, kRing = kPlan.ring;

  template <class X>
  using PerPair = X[kPairs];

  // Args: GruForward or GruBackward; shared: plan.shared_bytes.
  template <class Args>
  __device__ GruCta(const Args& a, char* shared)
      : place_(a.plan, a.first_direction, blockIdx.x),
        arrivals_(a.arrivals + place_.team * kArrivalStride),
        ctas_(a.plan.ctas),
        size_(a.hidden_size),
        units_(at_most(kUnits, size_ - place_.first_unit)),
        persistent_(a.plan.persistent),
        blocks_(a.plan.blocks),
        in_shared_(a.plan.in_shared),
        rows_(a.plan.group_rows),
        weight_(static_cast<const T*>(a.weight[place_.direction])),
        sums_(reinterpret_cast<float*>(shared)),
        biases_(reinterpret_cast<float*>(shared + kPlan.sum_bytes())),
        slice_(reinterpret_cast<Words*>(shared + kPlan.sum_bytes() + kPlan.bias_bytes(kForward))) {
    // By a shuffle, so that the compiler knows that all lanes have the same value.
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / kLanes, 0);
    m_group_ = warp % kPlan.m_groups;
    k_group_ = warp / kPlan.m_groups;
    whole_ = k_size() % kVectorOf<T> == 0 && reinterpret_cast<uintptr_t>(weight_) % 16 == 0;
    if constexpr (kForward) {
      for (int i = threadIdx.x; i < units_ * 4; i += kGruThreads)
        biases_[i] = gru_bias<T>(a, place_.direction, place_.first_unit + i / 4, i % 4);
    }
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      // Through the memory of the sums; each lane reads what it copied itself.
      Words* staged = reinterpret_cast<Words*>(sums_);
      store_slice(staged, i);
      wait_for_copies<0>();
      read_slot(staged, kept_[i]);
    }
    for (int i = 0; i < in_shared_; ++i) store_slice(slot(i), kKept + i);
    wait_for_copies<0>();
    for (int i = 0; i < kRing; ++i) stream(i);
    __syncthreads();
  }

  __device__ int direction() const { return computed_again(place_.direction); }
  __device__ int group() const { return place_.group; }
  __device__ int first_unit() const { return place_.first_unit; }
  __device__ float bias(int unit, int part) const { return biases_[unit * 4 + part]; }
  __device__ void sync() const { __syncthreads(); }
  __device__ void finish() const { wait_for_copies<0>(); }

  template <class F>
  __device__ void each_pair(int rows, const F& f) const {
    const int thread = thread_index();
#pragma unroll
    for (int slot = 0; slot < kPairs; ++slot) {
      const int pair = slot * kGruThreads + thread, row = pair / kUnits, unit = pair % kUnits;
      if (row < rows && unit < units_) f(slot, unit, row);
    }
  }

  __device__ void arrive() {
    arrived_ += ctas_;
    if (persistent_ && threadIdx.x == 0) add_release(arrivals_);
  }

  __device__ void wait() const {
    if (!persistent_) return;
    if (threadIdx.x == 0) {
#ifdef ASRKERN_DEBUG_SPIN
      const long long begin = clock64();
#endif
      while (load_acquire(arrivals_) < arrived_) {
#ifdef ASRKERN_DEBUG_SPIN
        if (clock64() - begin > 1ll << 34) __trap();  // some ten seconds
#endif
      }
    }
    __syncthreads();
  }

  // Ends with a barrier; the sums stay until the next call of sync(). Columns are one, two or four tiles.
  __device__ void multiply(const T* from, int begin, int rows) {
    if (rows <= kTileColumns)
      multiply_tiles<1>(from, begin);
    else if (rows <= 2 * kTileColumns)
      multiply_tiles<2>(from, begin);
    else
      multiply_tiles<kGruColumnTiles>(from, begin);
    if (in_ring() > 0) streamed_ = (streamed_ + in_ring()) % (kRing * in_ring());
    __syncthreads();
  }

  __device__ float sum(int slice_row, int row) const {
    const float* at = sums_ + sum_index(slice_row, row);
    float total = 0.0f;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) total += at[group * kPlan.slice_rows() * kGruChunk];
    return total;
  }

 private:
  template <int kColumns>
  __device__ void multiply_tiles(const T* from, int begin) {
    const Lane lane(threadIdx.x % kLanes);
    // With fewer columns more blocks can be on their way in the same number of registers.
    constexpr int kFetched = at_most(4, (kPlan.ahead + 1) * kGruColumnTiles / kColumns) - 1;
    float sums[kTiles][kColumns][4] = {};
    Words queue[kFetched + 1][kColumns];
    int fetched = k_group_;
    const T* column = from + (fetched * rows_ + begin + lane.column()) * kBlockOf<T> + lane.k<T>();
    const auto fetch = [&](Words(&columns)[kColumns]) {
      if (fetched < blocks_) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n)
          columns[n] = load_exchanged<(kPlan.m_groups > 1)>(column + n * kTileColumns * kBlockOf<T>);
      }
      fetched += kGroups;
      column += kGroups * rows_ * kBlockOf<T>;
    };
    const auto advance = [&] {
#pragma unroll
      for (int i = 0; i < kFetched; ++i)
#pragma unroll
        for (int n = 0; n < kColumns; ++n) queue[i][n] = queue[i + 1][n];
    };
#pragma unroll
    for (int i = 0; i < kFetched; ++i) fetch(queue[i]);
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      if (gru_block(k_group_, kGroups, i) >= blocks_) break;
      fetch(queue[kFetched]);
      multiply_block<T>(sums, kept_[i], queue[0]);
      advance();
    }
    for (int i = kKept; gru_block(k_group_, kGroups, i) < blocks_; ++i) {
      const bool streams = i >= kKept + in_shared_;
      const int number = streamed_ + i - kKept - in_shared_;
      fetch(queue[kFetched]);
      if (streams) wait_for_copies<kRing - 1>();
      Words a[kTiles][2];
      read_slot(slot(streams ? in_shared_ + number % kRing : i - kKept), a);
      multiply_block<T>(sums, a, queue[0]);
      advance();
      if (streams) stream(number + kRing);
    }
    float* mine = sums_ + k_group_ * kPlan.slice_rows() * kGruChunk;
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int n = 0; n < kColumns; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_row(m) + lane.sum_row(2 * half), at = n * kTileColumns + lane.sum_column(2 * half);
          *reinterpret_cast<float2*>(mine + sum_index(row, at)) =
              make_float2(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
        }
  }

  __device__ int64_t k_size() const { return int64_t(kForward ? 1 : 3) * size_; }
  // The first row of the slice in this warp's tile m.
  __device__ int first_row(int m) const { return (m_group_ * kTiles + m) * kTileRows; }

  // The place in shared memory of block number `index` of k.
  __device__ Words* slot(int index) const { return slice_ + index * kTiles * 2 * kGruThreads; }

  __device__ void read_slot(const Words* slot, Words (&tiles)[kTiles][2]) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m)
#pragma unroll
      for (int part = 0; part < 2; ++part) tiles[m][part] = slot[(2 * m + part) * kGruThreads + threadIdx.x];
  }

  // Begins to copy this lane's vectors of the warp's index-th block, with zeros beyond the matrix.
  __device__ void store_slice(Words* slot, int index) const {
    const int thread = thread_index();
    const Lane lane(thread % kLanes);
    const int64_t k = int64_t(gru_block(k_group_, kGroups, index)) * kBlockOf<T> + lane.k<T>();
#pragma unroll 1
    for (int vector = 0; vector < 2 * kTiles; ++vector) {
      const int row_of_slice = first_row(vector / 2) + lane.row(vector % 2);
      const int row = gru_weight_row(kForward, size_, kUnits, place_.first_unit, row_of_slice);
      Words* to = slot + vector * kGruThreads + thread;
      if (whole_ && row >= 0 && k < k_size())
        copy_async(to, weight_ + row * k_size() + k);
      else
        *to = load_vector(weight_, k_size(), row, k, false);
    }
    end_copies();
  }

  // How many blocks of k this warp streams at every call of multiply.
  __device__ int in_ring() const { return (blocks_ - k_group_ + kGroups - 1) / kGroups - kKept - in_shared_; }

  // Begins to copy into the ring the block that this warp needs kRing - 1 blocks later. `number` counts over all calls.
  __device__ void stream(int number) {
    if (in_ring() > 0) store_slice(slot(in_shared_ + number % kRing), kKept + in_shared_ + number % in_ring());
  }

  GruPlace place_;
  uint32_t* arrivals_;
  uint32_t ctas_, arrived_ = 0;
  int streamed_ = 0;
  int size_, units_;
  bool persistent_, whole_;
  int blocks_, in_shared_, rows_, m_group_, k_group_;
  const T* weight_;
  float *sums_, *biases_;
  Words* slice_;
  Words kept_[kKept > 0 ? kKept : 1][kTiles][2];
};

}  // namespace asrkern::cuda

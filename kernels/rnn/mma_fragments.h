// Which values of a matrix product each lane of a warp holds for mma.sync (PTX ISA, "Matrix fragments").
//
// A tile is 16 rows of A by 8 columns of B. k is walked in blocks of 64 bytes: 32 values of two bytes (two m16n8k16) or
// 16 of four (two m16n8k8). The instructions only ask that A and B agree on the order of k, so a lane takes 16
// contiguous bytes of each of its rows, in one load, and its registers are handed out over the two instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace asrkern {

constexpr int kTileRows = 16, kTileColumns = 8, kLanes = 32, kStepsOfBlock = 2;

template <class T>
constexpr int kBlockOf = 64 / int(sizeof(T));  // values of k in a block

template <class T>
constexpr int kVectorOf = 16 / int(sizeof(T));  // of which a lane holds as many of a row

struct alignas(16) Words {
  uint32_t word[4];
};

struct Lane {
  int group, place;

  ASRKERN_HOST_DEVICE explicit Lane(int index) : group(index / 4), place(index % 4) {}

  // The rows of A within a tile that the lane holds: part 0 and 1.
  ASRKERN_HOST_DEVICE int row(int part) const { return group + 8 * part; }
  // The column of B within a tile.
  ASRKERN_HOST_DEVICE int column() const { return group; }
  // The first k of its vectors within a block.
  template <class T>
  ASRKERN_HOST_DEVICE int k() const {
    return place * kVectorOf<T>;
  }
  // Where the sums 0 to 3 of a tile are: sums 0, 1 and 2, 3 are neighbours in a row.
  ASRKERN_HOST_DEVICE int sum_row(int index) const { return group + 8 * (index / 2); }
  ASRKERN_HOST_DEVICE int sum_column(int index) const { return 2 * place + index % 2; }
};

// Register `index` (0 to 3) of A for instruction `step` (0 or 1) of a block, from the vectors of both rows.
ASRKERN_HOST_DEVICE inline uint32_t a_register(const Words& low, const Words& high, int step, int index) {
  return (index % 2 ? high : low).word[2 * step + index / 2];
}

// Register `index` (0 or 1) of B.
ASRKERN_HOST_DEVICE inline uint32_t b_register(const Words& vector, int step, int index) {
  return vector.word[2 * step + index];
}

// A lane's vector of `row` from k on, of a row-major matrix with `size` columns; zeros beyond it and where row < 0.
// whole: every vector lies in 16 aligned bytes.
template <class T>
ASRKERN_HOST_DEVICE Words load_vector(const T* matrix, int64_t size, int64_t row, int64_t k, bool whole) {
  Words words = {{0, 0, 0, 0}};
  if (row < 0 || k >= size) return words;
  const T* from = matrix + row * size + k;
  if (whole) return *reinterpret_cast<const Words*>(from);
  T values[kVectorOf<T>] = {};
  ASRKERN_UNROLL
  for (int i = 0; i < kVectorOf<T>; ++i)
    if (k + i < size) values[i] = from[i];
  memcpy(&words, values, sizeof(words));
  return words;
}

// Where the sum of (row, column) is among those of one warp, 32 columns wide: no bank conflicts when lanes store their
// pairs of sums, nor when they read 16 rows of two neighbouring columns.
ASRKERN_HOST_DEVICE inline int sum_index(int row, int column) {
  return row * 32 + (column ^ ((row & 3) << 3 | (row >> 2 & 3) << 1));
}

}  // namespace asrkern

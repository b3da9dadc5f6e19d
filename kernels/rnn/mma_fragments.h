// Which values of a matrix product each lane of a warp holds for mma.sync (PTX ISA, "Matrix fragments").
//
// A tile is 16 rows of A by 8 columns of B. k is walked in blocks of kBlockBytes: 32 values of two bytes (two m16n8k16)
// or 16 values of four bytes (two m16n8k8). The instructions only need A and B to agree on the order of k. So a lane
// takes 16 contiguous bytes of each of its rows in one load, and divides its registers between the two instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace asrkern {

constexpr int kTileRows = 16, kTileColumns = 8, kLanes = 32, kStepsOfBlock = 2;
constexpr int kBlockBytes = 64;  // of each row in a block of k

template <class T>
constexpr int kBlockOf = kBlockBytes / int(sizeof(T));  // values of k in a block

template <class T>
constexpr int kVectorOf = 16 / int(sizeof(T));  // values of k that a lane holds of a row of a block

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
  // The first k of a lane's vectors within a block.
  template <class T>
  ASRKERN_HOST_DEVICE int k() const {
    return place * kVectorOf<T>;
  }
  // The places of the sums 0 to 3 of a tile: 0 and 1 are neighbours in a row, so are 2 and 3.
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

// A lane's vector of `row` from k on, in a row-major matrix with `size` columns. Zeros beyond the matrix and for row <
// 0. whole: every vector is 16 aligned bytes.
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

// The place of the sum of (row, column) among the sums of one warp, which are 32 columns wide. Free of bank conflicts
// when lanes store their pairs of sums, and when they read 16 rows of two neighbouring columns.
ASRKERN_HOST_DEVICE inline int sum_index(int row, int column) {
  return row * 32 + (column ^ ((row & 3) << 3 | (row >> 2 & 3) << 1));
}

}  // namespace asrkern

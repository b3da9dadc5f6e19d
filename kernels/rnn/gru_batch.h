// A ragged batch as the CUDA kernels of the GRU walk it: rows sorted by length, the longest first, on the device.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

struct GruBatch {
  int rows, steps;  // steps: of the padded input, or batch_sizes' length
  bool packed;      // frames as in a PackedSequence; else [steps, rows], or [rows, steps] with batch_first
  bool batch_first;
  const int32_t* order;    // [rows] the caller's row of each sorted row
  const int32_t* lengths;  // [rows] of the sorted rows
  const int32_t* active;   // [steps] how many rows have a frame at each step
  const int32_t* offsets;  // [steps] if packed, how many frames come before each step; else null

  // The frame of a sorted row at time t.
  ASRKERN_HOST_DEVICE int frame(int row, int t) const {
    if (packed) return offsets[t] + row;
    return batch_first ? order[row] * steps + t : t * rows + order[row];
  }

  // The frame at step t of a walk. The reverse direction begins at the row's own end.
  ASRKERN_HOST_DEVICE int place(int direction, int row, int t) const {
    return frame(row, direction == 1 ? lengths[row] - 1 - t : t);
  }
};

// The place of row i among rows sorted by falling length; rows of equal length keep their order.
ASRKERN_HOST_DEVICE inline int sorted_place(const int32_t* lengths, int rows, int i) {
  int place = 0;
  for (int j = 0; j < rows; ++j) place += lengths[j] > lengths[i] || (lengths[j] == lengths[i] && j < i);
  return place;
}

// How many rows have a frame at step t. sorted_lengths fall.
ASRKERN_HOST_DEVICE inline int active_rows(const int32_t* sorted_lengths, int rows, int t) {
  int low = 0, high = rows;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (sorted_lengths[middle] > t)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// How many frames come before step t in packed order.
ASRKERN_HOST_DEVICE inline int frames_before(const int32_t* sorted_lengths, int rows, int t) {
  int frames = 0;
  for (int i = 0; i < rows && sorted_lengths[i] > 0; ++i) frames += sorted_lengths[i] < t ? sorted_lengths[i] : t;
  return frames;
}

}  // namespace asrkern

// What the CPU and the CUDA side of batch_norm_act share: reading the layout.
#pragma once

#include <string>
#include <vector>

#include "csrc/ops/common.h"

namespace asrkern {

// layout: one letter a dimension; N rows, C channels, F inner, T time, R frames of a single row.
struct BatchNormActSizes {
  int64_t batch = 1, channels = 1, inner = 1, time = 1;
  bool time_last, batch_first;

  BatchNormActSizes(const Tensor& input, const std::string& layout)
      : time_last(layout.back() == 'T'), batch_first(layout[0] != 'T') {
    for (size_t d = 0; d < layout.size(); ++d) {
      const int64_t size = input.size(int64_t(d));
      if (layout[d] == 'N') batch = size;
      if (layout[d] == 'C') channels = size;
      if (layout[d] == 'F') inner = size;
      if (layout[d] == 'T' || layout[d] == 'R') time = size;
    }
  }
};

inline std::vector<int64_t> sizes_of(const Tensor& tensor) { return {tensor.sizes().begin(), tensor.sizes().end()}; }

}  // namespace asrkern

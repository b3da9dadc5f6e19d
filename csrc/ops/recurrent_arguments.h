// Checks of the arguments of recurrent operations, on the CPU and on CUDA: all that memory safety depends on.
#pragma once

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "csrc/ops/check.h"

namespace asrkern {

// How many frames the caller's tensor has, whatever the lengths of its rows.
inline int64_t caller_frames_of(const Tensor& input) {
  const auto sizes = sizes_of(input);
  return sizes.size() == 2 ? sizes[0] : sizes[0] * sizes[1];
}

// The input's shape with another number of features.
inline std::vector<int64_t> with_features(const Tensor& input, int64_t features) {
  const auto sizes = sizes_of(input);
  std::vector<int64_t> result(sizes.begin(), sizes.end());
  result.back() = features;
  return result;
}

// A batch may have no rows, but it needs frames. torch's layers say the same.
inline void check_batch(const Tensor& input, const std::optional<Tensor>& lengths,
                        const std::optional<Tensor>& batch_sizes, bool batch_first) {
  check("input", input).dim(batch_sizes ? 2 : 3);
  if (batch_sizes) {
    check("lengths", lengths).given(false, "with batch_sizes");
    check("batch_sizes", batch_sizes).dtype(ScalarType::Long).dim(1);
    if (!batch_sizes->is_cpu()) invalid("batch_sizes: expected a tensor on the CPU, received another");
  }
  const auto sizes = sizes_of(input);
  if (sizes[batch_sizes || !batch_first ? 0 : 1] == 0)
    invalid("input: expected at least one frame, received shape ", shape_text(sizes));
  check("lengths", lengths).dtype(ScalarType::Long).shape({sizes[batch_first ? 0 : 1]});
}

// One direction's parameters as the operation received them; null if it did not.
struct DirectionArguments {
  const Tensor *weight_ih, *weight_hh, *bias_ih = nullptr, *bias_hh = nullptr, *scale_ih = nullptr, *scale_hh = nullptr;
};

inline const Tensor* pointer(const Tensor& tensor) { return &tensor; }
inline const Tensor* pointer(const std::optional<Tensor>& tensor) { return tensor ? &*tensor : nullptr; }

// Returns the hidden_size of a weight [gates · hidden_size, hidden_size].
inline int64_t check_weight_hh(const Tensor& weight_hh, int64_t gates) {
  check("weight_hh", weight_hh);
  const auto sizes = sizes_of(weight_hh);
  if (sizes.size() != 2 || sizes[0] == 0 || sizes[0] % gates || sizes[0] / gates != sizes[1])
    invalid("weight_hh: expected [", gates, "·hidden_size, hidden_size], received shape ", shape_text(sizes));
  return sizes[1];
}

// rows: gates · hidden_size. shape_hh: of each weight_hh, or of packed_hh if the weights are packed.
inline void check_parameters(const Tensor& input, int64_t rows, std::span<const int64_t> shape_hh, bool packed,
                             const DirectionArguments (&directions)[2]) {
  static constexpr struct {
    const char *weight_ih, *weight_hh, *packed_hh, *bias_ih, *bias_hh, *scale_ih, *scale_hh;
  } kNames[] = {{"weight_ih", "weight_hh", "packed_hh", "bias_ih", "bias_hh", "scale_ih", "scale_hh"},
                {"weight_ih_reverse", "weight_hh_reverse", "packed_hh_reverse", "bias_ih_reverse", "bias_hh_reverse",
                 "scale_ih_reverse", "scale_hh_reverse"}};
  const DirectionArguments& forward = directions[0];
  const ScalarType type = dtype_of(*forward.weight_ih), values = dtype_of(input);
  for (int d = 0; d < 2; ++d) {
    const DirectionArguments& given = directions[d];
    const bool there = given.weight_ih;
    const char* as = d == 0 || there ? "as bias_ih is" : "as weight_ih_reverse is";
    Argument(kNames[d].weight_ih, given.weight_ih).dtype(type).shape({rows, sizes_of(input).back()});
    Argument(packed ? kNames[d].packed_hh : kNames[d].weight_hh, given.weight_hh)
        .given(there, "as weight_ih_reverse is")
        .dtype(type)
        .shape(shape_hh);
    Argument(kNames[d].bias_ih, given.bias_ih).given(there && forward.bias_ih, as).dtype(values).shape({rows});
    Argument(kNames[d].bias_hh, given.bias_hh).given(there && forward.bias_ih, as).dtype(values).shape({rows});
    for (const auto& [name, scale] :
         {std::pair(kNames[d].scale_ih, given.scale_ih), std::pair(kNames[d].scale_hh, given.scale_hh)}) {
      if (!there) Argument(name, scale).given(false, as);
      Argument(name, scale).dtype(values).shape({rows});
    }
  }
}

// Checks what an operation and its backward have in common, with weights as torch keeps them.
inline void check_layer(const Tensor& input, const std::optional<Tensor>& lengths,
                        const std::optional<Tensor>& batch_sizes, bool batch_first, int64_t gates,
                        const DirectionArguments (&directions)[2]) {
  check_batch(input, lengths, batch_sizes, batch_first);
  const Tensor& weight_hh = *directions[0].weight_hh;
  const int64_t size = check_weight_hh(weight_hh, gates);
  Argument("weight_ih", directions[0].weight_ih).dtype(input);
  check_parameters(input, gates * size, sizes_of(weight_hh), false, directions);
}

}  // namespace asrkern

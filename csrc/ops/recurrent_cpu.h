// What the recurrent operations share around their kernels: forward and backward of one layer, given its cell.
#pragma once

#include "csrc/ops/packed_order.h"

namespace asrkern {

// A layer as it was called: its batch in packed order, its input and weights dense.
struct RecurrentLayer {
  // With `packed_size` units, weight_hh is already what the cell's kernel packs, and gates are weight_ih's rows.
  RecurrentLayer(const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
                 const Tensor& weight_ih, const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
                 const std::optional<Tensor>& weight_hh_reverse, bool batch_first,
                 std::optional<int64_t> packed_size = std::nullopt)
      : input(dense(input)),
        order(make_order(input, lengths, batch_sizes, batch_first)),
        weight_ih{dense(weight_ih), dense(weight_ih_reverse.value_or(weight_ih))},
        weight_hh{dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))},
        packed(packed_size.has_value()),
        directions(weight_hh_reverse ? 2 : 1),
        size(packed_size ? *packed_size : weight_hh.size(1)),
        gates(weight_ih.size(0)),
        features(weight_ih.size(1)),
        rows(int64_t(order.rows.size())) {}

  Tensor input;
  PackedOrder order;
  Tensor weight_ih[2], weight_hh[2];
  std::optional<Tensor> scale_ih[2], scale_hh[2];  // of quantised weights: [gates] a direction
  bool packed;
  int directions;
  int64_t size, gates, features, rows;  // gates: those of all units
};

// The steps are walked in parts of about this many frames: their gates stay in a cache, and take memory that the last
// call has freed instead of new pages. As many rows are enough for linear to make up for packing its weights again.
constexpr int64_t kFramesAtOnce = 480;

// Where the part of the steps that begins at `first` ends.
inline int64_t end_of_part(const cpu::RecurrentBatch& batch, int64_t first) {
  int64_t frames = batch.active[first], last = first + 1;
  while (last < batch.steps && frames + batch.active[last] <= kFramesAtOnce) frames += batch.active[last++];
  return last;
}

// Weights of both directions that stay in a shared cache from one step to the next. Where they outgrow it, the
// directions take their turns: the bytes that pass through the cache between two uses of one are half as many then.
constexpr int64_t kCachedBytes = 16 << 20;

inline int directions_at_once(int directions, int64_t bytes_of_one) {
  return directions * bytes_of_one > kCachedBytes ? 1 : directions;
}

// A layer whose weight_hh the cell's kernel has packed, and may have quantised.
inline RecurrentLayer prepacked_layer(
    const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
    const Tensor& weight_ih, const std::optional<Tensor>& scale_ih, const Tensor& packed_hh,
    const std::optional<Tensor>& scale_hh, const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
    const std::optional<Tensor>& weight_ih_reverse, const std::optional<Tensor>& scale_ih_reverse,
    const std::optional<Tensor>& packed_hh_reverse, const std::optional<Tensor>& scale_hh_reverse,
    const std::optional<Tensor>& bias_ih_reverse, const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
    int64_t gates) {
  check("input", input).dtype(ScalarType::Float);
  check_batch(input, lengths, batch_sizes, batch_first);
  check("weight_ih", weight_ih).dtype({ScalarType::Float, ScalarType::BFloat16, ScalarType::Char}).dim(2);
  const int64_t rows = weight_ih.size(0);
  if (rows == 0 || rows % gates)
    invalid("weight_ih: expected [", gates, "·hidden_size, input_size], received shape ",
            shape_text(sizes_of(weight_ih)));
  const int64_t any_size[] = {kAny};  // check_packed knows it
  check_parameters(input, rows, any_size, true,
                   {{&weight_ih, &packed_hh, pointer(bias_ih), pointer(bias_hh), pointer(scale_ih), pointer(scale_hh)},
                    {pointer(weight_ih_reverse), pointer(packed_hh_reverse), pointer(bias_ih_reverse),
                     pointer(bias_hh_reverse), pointer(scale_ih_reverse), pointer(scale_hh_reverse)}});
  RecurrentLayer layer(input, lengths, batch_sizes, weight_ih, packed_hh, weight_ih_reverse, packed_hh_reverse,
                       batch_first, rows / gates);
  layer.scale_ih[0] = dense(scale_ih), layer.scale_ih[1] = dense(scale_ih_reverse);
  layer.scale_hh[0] = dense(scale_hh), layer.scale_hh[1] = dense(scale_hh_reverse);
  return layer;
}

// The kernels of a cell, by how its weights are stored and what they meet.
template <class Float, class Bf16, class Int8, class Int8Dot>
struct KernelsByWeight {
  const Float& for_float;
  const Bf16& for_bf16;
  const Int8& for_int8;
  const Int8Dot& for_int8_dot;
};
template <class... Kernels>
KernelsByWeight(const Kernels&...) -> KernelsByWeight<Kernels...>;

// f(W(), the cell's kernels for W, linear's for W) by the type that a weight is stored as.
template <class Cells, class F>
auto with_weight_type(const Tensor& weight, const char* name, bool int8_activations, const Cells& cells, const F& f) {
  const cpu::Kernels<float>& kernels = cpu::kernels<float>();
  if (int8_activations) {
    check(name, weight).dtype(ScalarType::Char);
    return f(cpu::Int8Dot(), cells.for_int8_dot, cpu::int8_kernels().linear);
  }
  if (weight.scalar_type() == ScalarType::Char) return f(int8_t(), cells.for_int8, kernels.linear_int8);
  if (weight.scalar_type() == ScalarType::BFloat16) return f(cpu::Bf16(), cells.for_bf16, kernels.linear_bf16);
  using Float = std::remove_cvref_t<decltype(cells.for_float)>;
  return f(float(), static_cast<const typename Float::Inference&>(cells.for_float), kernels.linear);
}

template <class Cells>
Tensor pack_weight(const Tensor& weight_hh, bool int8_activations, int64_t gates, const Cells& cells) {
  check("weight_hh", weight_hh).dtype({ScalarType::Float, ScalarType::BFloat16, ScalarType::Char});
  const int64_t size = check_weight_hh(weight_hh, gates);
  const Tensor weight = dense(weight_hh);
  return with_weight_type(weight, "weight_hh", int8_activations, cells, [&](auto type, const auto& kernels, auto) {
    using W = decltype(type);
    Tensor packed = allocate(weight, {kernels.packed_size(size)});
    prefer_huge_pages(packed);
    kernels.pack(torch_threads(), data<W>(weight), size, mutable_data<W>(packed));
    return packed;
  });
}

template <class Kernels>
void check_packed(const RecurrentLayer& layer, const Kernels& kernels) {
  for (const Tensor& packed : layer.weight_hh)
    if (packed.numel() != kernels.packed_size(layer.size))
      invalid("packed_hh: expected ", kernels.packed_size(layer.size), " values, packed for ", layer.size,
              " units and this instruction set, received ", packed.numel());
}

// The biases of each direction, dense.
using Biases = std::optional<Tensor>[2];

struct RecurrentResult {
  Tensor output, h_n, reserve;
};

// cell, linear: the kernels for Cell and for its input projection, by the type of its weights. The first `summed_bias`
// elements of bias_hh join bias_ih in front of the recurrence. complete(d, pass) adds to what
// every cell has what direction d of this one has beside it.
template <class Cell, class Kernels, class Complete>
RecurrentResult recurrent_forward(const RecurrentLayer& layer, const Kernels& cell,
                                  const cpu::LinearKernels<typename Cell::Value, typename Cell::Weight>& linear,
                                  const std::optional<Tensor>& h0, const Biases& bias_ih, const Biases& bias_hh,
                                  int64_t summed_bias, bool save_reserve, const Complete& complete) {
  using T = typename Cell::Value;
  using W = typename Cell::Weight;
  const cpu::ThreadPool pool = torch_threads();
  const cpu::RecurrentBatch batch = layer.order.batch();
  const Tensor& input = layer.input;
  const int64_t size = layer.size, gates = layer.gates, features = layer.features;
  const int64_t width = layer.directions * size, saved = Cell::kSaved * size;

  Tensor output = new_output(input, with_features(input, width));
  const int64_t frames = caller_frames_of(input);
  Tensor reserve = save_reserve ? new_output(input, {layer.directions, frames, saved}) : new_output(input, {0});
  const Tensor initial = sorted_states("h0", input, h0, layer.order, layer.directions, size);
  Tensor h_n = torch::stable::clone(initial);  // where rows of no length stay

  const int64_t longest_part = std::min(batch.frames, std::max(kFramesAtOnce, batch.rows));
  const int64_t packed_size = cell.packed_size(size);
  const int at_once = directions_at_once(layer.directions, packed_size * int64_t(sizeof(W)));
  Tensor gates_x = allocate(input, {at_once, longest_part, gates});
  Tensor states = allocate(input, {at_once, 2, batch.rows, size});
  Tensor scratch_ih = allocate(input, {linear.scratch_size(pool, longest_part, features)});
  std::vector<int64_t> scratch(std::max(pool.threads, at_once) * at_once * cell.scratch_size(batch.rows, size));
  std::vector<const T*> inputs[2] = {frame_pointers(layer.order, data<T>(input), features, 0)};
  if (layer.directions == 2) inputs[1] = reversed_pointers(layer.order, inputs[0]);
  std::vector<T*> outputs[2], projected[2];
  std::vector<T> bias[2];
  for (int from = 0; from < layer.directions; from += at_once) {
    std::vector<typename Cell::Forward> passes;
    Tensor packed_hh[2] = {layer.weight_hh[0], layer.weight_hh[1]};
    for (int d = from; d < from + at_once; ++d) {
      if (bias_ih[d]) {
        bias[d].assign(data<T>(*bias_ih[d]), data<T>(*bias_ih[d]) + gates);
        for (int64_t j = 0; j < summed_bias; ++j) bias[d][j] += data<T>(*bias_hh[d])[j];
      }
      T* x = mutable_data<T>(gates_x) + (d - from) * longest_part * gates;
      projected[d] = row_pointers(x, longest_part, gates);
      if (!layer.packed) {
        packed_hh[d] = allocate(layer.weight_hh[d], {packed_size});
        cell.pack(pool, data<W>(layer.weight_hh[d]), size, mutable_data<W>(packed_hh[d]));
      }
      outputs[d] = frame_pointers(layer.order, mutable_data<T>(output), width, d * size);
      passes.push_back(complete(d, cpu::RecurrentForward<T, W>{
                                       d == 1, size, x, data<W>(packed_hh[d]), data<T>(initial) + d * batch.rows * size,
                                       mutable_data<T>(states) + (d - from) * 2 * batch.rows * size, outputs[d].data(),
                                       mutable_data<T>(h_n) + d * batch.rows * size,
                                       save_reserve ? mutable_data<T>(reserve) + d * frames * saved : nullptr,
                                       data_or_null<T>(layer.scale_hh[d])}));
    }
    for (int64_t first = 0, last; first < batch.steps; first = last) {
      last = end_of_part(batch, first);
      const int64_t begin = batch.offsets[first], end = batch.offsets[last - 1] + batch.active[last - 1];
      for (int d = from; d < from + at_once; ++d)
        linear.run(pool, {.x = inputs[d].data() + begin,
                          .rows = end - begin,
                          .weight = data<W>(layer.weight_ih[d]),
                          .out_features = gates,
                          .in_features = features,
                          .y = projected[d].data(),
                          .scratch = mutable_data<T>(scratch_ih),
                          .scale = data_or_null<T>(layer.scale_ih[d]),
                          .bias = bias_ih[d] ? bias[d].data() : nullptr});
      cell.forward(pool, batch, passes.data(), at_once, first, last, scratch.data());
    }
  }
  zero_padding(layer.order, frames, width, mutable_data<T>(output));
  if (save_reserve)
    for (int d = 0; d < layer.directions; ++d)
      std::fill(mutable_data<T>(reserve) + (d * frames + batch.frames) * saved,
                mutable_data<T>(reserve) + (d + 1) * frames * saved, T(0));
  return {output, caller_states(h_n, layer.order), reserve};
}

struct RecurrentGradients {
  Tensor input, h0, weight_ih, weight_hh, bias_ih, bias_hh;
};

// sums[j] += Σ_i values[i][j]
template <class T>
void add_rows(const T* values, int64_t rows, int64_t columns, T* sums) {
  for (int64_t i = 0; i < rows; ++i, values += columns)
    for (int64_t j = 0; j < columns; ++j) sums[j] += values[j];
}

// The gradients of one direction's weights, biases and input from those of the gates of a part of the steps: one matrix
// product for each over all of its frames, in place of one a step.
template <class T>
struct DeferredGradients {
  int64_t size, gates, features;
  bool last_of_its_own;
  const T* weight_ih;
  T *grad_weight_ih, *grad_weight_hh, *grad_bias_ih, *grad_bias_hh;
  std::vector<const T*> inputs;  // [frames] in the direction's own order
  std::vector<T*> grad_inputs;   // likewise

  // Memory for a part of any direction.
  struct Scratch {
    std::vector<T> input, by_unit, linear;
  };

  // pass: what the kernel wrote for the `rows` frames from `begin` on.
  void add(const cpu::ThreadPool& pool, const cpu::RecurrentBackward<T>& pass, int64_t begin, int64_t rows,
           Scratch& scratch) {
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    const int64_t shared = last_of_its_own ? gates - size : gates;  // gates whose gradient is the same for x and h
    auto& [input, by_unit, for_linear] = scratch;
    input.resize(rows * features), by_unit.resize(rows * (last_of_its_own ? gates + size : gates));
    for_linear.resize(kernels.linear.scratch_size(pool, gates, std::max(rows, gates)));
    for (int64_t i = 0; i < rows; ++i) std::copy_n(inputs[begin + i], features, input.data() + i * features);
    const std::vector<T*> units = row_pointers(by_unit.data(), int64_t(by_unit.size()) / rows, rows);
    kernels.transpose_matrix(pool, pass.grad_gates, rows, gates, units[0]);
    std::vector<const T*> of_x(units.begin(), units.begin() + gates);
    const std::vector<const T*> of_h = of_x;
    if (last_of_its_own) {
      kernels.transpose_matrix(pool, pass.grad_last_x, rows, size, units[gates]);
      std::copy_n(units.begin() + gates, size, of_x.begin() + shared);
    }
    const auto add_product = [&](const std::vector<const T*>& x, const T* weight, int64_t out, int64_t in,
                                 T* const* y) {
      kernels.linear.run(pool, {.x = x.data(),
                                .rows = int64_t(x.size()),
                                .weight = weight,
                                .out_features = out,
                                .in_features = in,
                                .y = y,
                                .scratch = for_linear.data(),
                                .transposed = true,
                                .accumulate = true});
    };
    add_product(of_x, input.data(), features, rows, row_pointers(grad_weight_ih, gates, features).data());
    add_product(of_h, pass.h_previous, size, rows, row_pointers(grad_weight_hh, gates, size).data());
    const auto rows_of = [&](const T* values, int64_t stride) { return row_pointers(values, rows, stride); };
    add_product(rows_of(pass.grad_gates, gates), weight_ih, features, shared, grad_inputs.data() + begin);
    add_rows(pass.grad_gates, rows, gates, grad_bias_hh);
    if (!last_of_its_own) return;
    add_product(rows_of(pass.grad_last_x, size), weight_ih + shared * features, features, size,
                grad_inputs.data() + begin);
    add_rows(pass.grad_last_x, rows, size, grad_bias_ih + shared);
  }

  // After the last part.
  void finish() { std::copy_n(grad_bias_hh, last_of_its_own ? gates - size : gates, grad_bias_ih); }
};

template <class Cell, class Kernels, class Complete>
RecurrentGradients recurrent_backward(const RecurrentLayer& layer, const Kernels& cell, const Tensor& grad_output,
                                      const Tensor& grad_h_n, const std::optional<Tensor>& h0, const Tensor& output,
                                      const Tensor& reserve, const Complete& complete) {
  using T = typename Cell::Value;
  const cpu::ThreadPool pool = torch_threads();
  const cpu::Kernels<T>& kernels = cpu::kernels<T>();
  const cpu::RecurrentBatch batch = layer.order.batch();
  const Tensor& input = layer.input;
  const int64_t size = layer.size, gates = layer.gates, features = layer.features, directions = layer.directions;
  const int64_t width = directions * size, frames = caller_frames_of(input), saved = Cell::kSaved * size;
  check("grad_output", grad_output).dtype(input).shape(with_features(input, width));
  check("output", output).dtype(input).shape(with_features(input, width));
  check("reserve", reserve).dtype(input).shape({directions, frames, saved});
  const int64_t longest_part = std::min(batch.frames, std::max(kFramesAtOnce, batch.rows));
  const Tensor dy = dense(grad_output), y = dense(output), kept = dense(reserve);
  const Tensor initial = sorted_states("h0", input, h0, layer.order, directions, size);
  Tensor grad_h = sorted_states("grad_h_n", input, grad_h_n, layer.order, directions, size);
  const int64_t packed_size = kernels.linear_packed_size(size, gates);
  const int at_once = directions_at_once(layer.directions, packed_size * int64_t(sizeof(T)));
  Tensor previous = new_output(input, {at_once, longest_part, size});
  Tensor grad_gates = new_output(input, {at_once, longest_part, gates});
  Tensor grad_last_x = new_output(input, {at_once, Cell::kHasGradLastX ? longest_part : 0, size});
  Tensor packed = allocate(input, {at_once, packed_size});
  Tensor grad_input = allocate_zeros(input, input.sizes());
  Tensor grad_weight_ih = allocate_zeros(input, {directions, gates, features});
  Tensor grad_weight_hh = allocate_zeros(input, {directions, gates, size});
  Tensor grad_bias_ih = allocate_zeros(input, {directions, gates});
  Tensor grad_bias_hh = allocate_zeros(input, {directions, gates});

  typename DeferredGradients<T>::Scratch scratch;
  std::vector<const T*> outputs[2], grads[2];
  std::vector<const T*> gate_rows(pool.threads * at_once * batch.rows);
  std::vector<T*> states(gate_rows.size());
  std::vector<int64_t> parts;
  for (int64_t first = 0; first < batch.steps; first = end_of_part(batch, first)) parts.push_back(first);
  for (int from = 0; from < layer.directions; from += at_once) {
    std::vector<typename Cell::Backward> passes;
    std::vector<DeferredGradients<T>> deferred;
    for (int d = from; d < from + at_once; ++d) {
      const int64_t slot = d - from;
      T* weight = mutable_data<T>(packed) + slot * packed_size;
      kernels.linear_pack(pool, data<T>(layer.weight_hh[d]), true, size, gates, weight);
      outputs[d] = frame_pointers(layer.order, data<T>(y), width, d * size);
      grads[d] = frame_pointers(layer.order, data<T>(dy), width, d * size);
      std::vector<const T*> inputs = frame_pointers(layer.order, data<T>(input), features, 0);
      std::vector<T*> grad_inputs = frame_pointers(layer.order, mutable_data<T>(grad_input), features, 0);
      if (d == 1) {
        inputs = reversed_pointers(layer.order, inputs);
        grad_inputs = reversed_pointers(layer.order, grad_inputs);
      }
      deferred.push_back({size, gates, features, Cell::kHasGradLastX, data<T>(layer.weight_ih[d]),
                          mutable_data<T>(grad_weight_ih) + d * gates * features,
                          mutable_data<T>(grad_weight_hh) + d * gates * size, mutable_data<T>(grad_bias_ih) + d * gates,
                          mutable_data<T>(grad_bias_hh) + d * gates, std::move(inputs), std::move(grad_inputs)});
      passes.push_back(complete(
          d, cpu::RecurrentBackward<T>{
                 d == 1, size, weight, data<T>(initial) + d * batch.rows * size, outputs[d].data(), grads[d].data(),
                 data<T>(kept) + d * frames * saved, mutable_data<T>(grad_h) + d * batch.rows * size,
                 mutable_data<T>(previous) + slot * longest_part * size,
                 mutable_data<T>(grad_gates) + slot * longest_part * gates,
                 mutable_data<T>(grad_last_x) + (Cell::kHasGradLastX ? slot * longest_part * size : 0)}));
    }
    for (int64_t part = int64_t(parts.size()) - 1, last = batch.steps; part >= 0; last = parts[part--]) {
      const int64_t first = parts[part], begin = batch.offsets[first];
      const int64_t rows = batch.offsets[last - 1] + batch.active[last - 1] - begin;
      cell.backward(pool, batch, passes.data(), at_once, first, last, gate_rows.data(), states.data());
      for (int slot = 0; slot < at_once; ++slot) deferred[slot].add(pool, passes[slot], begin, rows, scratch);
    }
    for (DeferredGradients<T>& direction : deferred) direction.finish();
  }
  return {grad_input, caller_states(grad_h, layer.order), grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh};
}

}  // namespace asrkern

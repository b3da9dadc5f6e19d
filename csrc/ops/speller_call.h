// What the speller's operations share: their arguments, checked, as the kernel takes them.
#pragma once

#include <string>
#include <vector>

#include "csrc/ops/common.h"

namespace asrkern {

using Tensors = std::vector<Tensor>;

// The description of a speller, in the order of the schema; see asrkern/ops/speller.py.
struct Description {
  bool gru;
  const Tensor& embedding;
  const Tensors& cells;  // of each: W_ih and W_hh packed, their scales, the summed biases, a GRU's n part of b_hh
  const std::string& scores;
  int64_t heads;
  double scale;
  bool smoothing;
  const Tensors& attention;  // W packed, its scale and bias, energy, location, its bias
  int64_t features_begin;
  const Tensors& outputs;  // of each: W packed, its scale and bias
  const std::vector<int64_t>& widths;
  bool feeds_context;
};

// Of a search: so many that no product with another size is too large to be counted.
constexpr int64_t kMostRows = int64_t(1) << 27;

constexpr size_t kPerCell = 6, kPerAttention = 6, kPerOutput = 3;

// An empty tensor stands for a missing one.
inline bool given(const Tensor& tensor) { return tensor.defined() && tensor.numel() > 0; }

inline void check_count(const char* name, size_t expected, size_t received) {
  if (received != expected) invalid(name, ": expected ", expected, " tensors, received ", received);
}

// Views tensors as dense float32 values of a shape, and keeps them alive. Null for a missing tensor.
class Values {
 public:
  const float* need(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
    check(name, tensor).dtype(ScalarType::Float).shape(shape);
    if (!tensor.is_cpu()) invalid(name, ": expected a tensor on the CPU, received one that is elsewhere");
    kept_.push_back(dense(tensor));
    return data<float>(kept_.back());
  }
  const float* may(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
    return given(tensor) ? need(name, tensor, shape) : nullptr;
  }
  template <class W>
  const W* packed(const char* name, const Tensor& tensor, ScalarType type, int64_t expected) {
    check(name, tensor).dtype(type).dim(1);
    if (!tensor.is_cpu()) invalid(name, ": expected a tensor on the CPU, received one that is elsewhere");
    if (tensor.numel() != expected)
      invalid(name, ": expected ", expected, " values, packed for this speller and instruction set, received ",
              tensor.numel());
    kept_.push_back(dense(tensor));
    return data<W>(kept_.back());
  }
  // Memory for scratch or results, of at least one value.
  float* scratch(const Tensor& like, int64_t a, int64_t b) {
    kept_.push_back(allocate(like, {a, b}));
    return mutable_data<float>(kept_.back());
  }

 private:
  Tensors kept_;
};

// The kernels for weights stored as W.
template <class W>
const cpu::SpellerKernels<float, W>& kernels_for() {
  const cpu::Kernels<float>& kernels = cpu::kernels<float>();
  if constexpr (std::is_same_v<W, float>)
    return kernels.speller;
  else if constexpr (std::is_same_v<W, cpu::Bf16>)
    return kernels.speller_bf16;
  else
    return kernels.speller_int8;
}

// One call: checks everything, and holds the speller as the kernel takes it. There is room for `copies` rows of each
// row that is given; those given come first.
template <class W>
class Call {
 public:
  Call(const Description& d, ScalarType type, const Tensor& tokens, const Tensor& states, const Tensor& context,
       const std::optional<Tensor>& previous, const Tensor& keys, const Tensor& values, const Tensor& lengths,
       int64_t copies = 1)
      : kernels_(cpu::kernels<float>()), gates_(d.gru ? 3 : 4) {
    check("tokens", tokens).dtype(ScalarType::Long).dim(1);
    check("keys", keys).dtype(ScalarType::Float).dim(3);
    check("values", values).dtype(ScalarType::Float).shape({keys.size(0), keys.size(1), kAny});
    check("embedding", d.embedding).dtype(ScalarType::Float).dim(2);
    if (d.cells.empty() || d.cells.size() % kPerCell)
      invalid("cells: expected ", kPerCell, " tensors for each cell, received ", d.cells.size());
    given_rows = tokens.size(0), frames = keys.size(1), context_size = values.size(2), memories = keys.size(0);
    const int64_t count = int64_t(d.cells.size() / kPerCell), per_cell = d.gru ? 1 : 2, attended = keys.size(2);
    check("states", states).dtype(ScalarType::Float).shape({count * per_cell, given_rows, kAny});
    size = states.size(2);
    if (given_rows < 1 || memories < 1 || given_rows % memories)
      invalid("tokens: expected rows that are a multiple of the ", memories, " of keys, received ", given_rows);
    if (__builtin_mul_overflow(given_rows, copies, &rows) || (copies > 1 && rows > kMostRows))
      throw OutOfMemory("no memory for " + std::to_string(copies) + " hypotheses of each of " +
                        std::to_string(given_rows) + " rows");
    if (size < 1 || frames < 1 || context_size < 1 || attended < 1 || d.embedding.size(0) < 1 ||
        d.embedding.size(1) < 1)
      invalid("states, keys, values, embedding: expected no empty ones");

    speller_.gru = d.gru;
    speller_.embedding_size = d.embedding.size(1);
    speller_.num_tokens = d.embedding.size(0);
    speller_.embedding = values_.need("embedding", d.embedding, {kAny, kAny});
    speller_.feeds_context = d.feeds_context;
    speller_.size = size;
    speller_.context_size = context_size;
    add_outputs(d, type);
    add_cells(d, type, states, count, per_cell);
    add_attention(d, type, attended);

    memory_.keys = values_.need("keys", keys, {kAny, kAny, kAny});
    memory_.values = values_.need("values", values, {kAny, kAny, kAny});
    lengths_ = read_lengths(lengths, "lengths", memories, frames);
    memory_.lengths = lengths_.data();
    memory_.frames = frames;

    tokens_.resize(rows), origins_.resize(rows), frames_of_.resize(rows);
    const Tensor given_tokens = dense(tokens);
    for (int64_t i = 0; i < rows; ++i) frames_of_[i] = i;
    for (int64_t i = 0; i < given_rows; ++i) {
      tokens_[i] = data<int64_t>(given_tokens)[i];
      if (tokens_[i] < 0 || tokens_[i] >= speller_.num_tokens)
        invalid("tokens: expected values below the ", speller_.num_tokens, " of embedding, received ", tokens_[i],
                " at row ", i);
      origins_[i] = i;
    }
    add_rows(keys, context, previous, attended, d.heads);
  }

  void spell(const cpu::SpellerGreedy* greedy) {
    kernels_for<W>().spell(torch_threads(), speller_, memory_, rows_, greedy);
  }

  int64_t given_rows, rows, frames, size, context_size, memories;
  int64_t num_tokens() const { return speller_.num_tokens; }

  // The states after a step: [states, rows, size].
  Tensor states(const Tensor& like) {
    Tensor result = new_output(like, like.sizes());
    float* to = mutable_data<float>(result);
    for (const auto& cell : cells_) {
      to = std::copy_n(cell.h + rows * size, rows * size, to);
      if (cell.c) to = std::copy_n(cell.c, rows * size, to);
    }
    return result;
  }
  Tensor context(const Tensor& like) {
    Tensor result = new_output(like, {rows, context_size});
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(rows_.features + i * (size + context_size) + size, context_size,
                  mutable_data<float>(result) + i * context_size);
    return result;
  }
  Tensor logits, weights;

  // The next step's rows: row i is what row from[i] is after the step before, and takes tokens[i].
  void go_on(const std::vector<int64_t>& from, const std::vector<int64_t>& tokens) {
    for (auto& cell : cells_) {
      gather(from, cell.h + rows_.rows * size, size, size, cell.h);
      if (cell.c) gather(from, cell.c, size, size, cell.c);
    }
    float* contexts = rows_.features + size;
    gather(from, contexts, size + context_size, context_size, contexts);
    gather(from, rows_.weights, frames, frames, rows_.weights);
    std::vector<int64_t> origins;
    for (const int64_t row : from) origins.push_back(origins_[row]);
    std::copy(origins.begin(), origins.end(), origins_.begin());
    std::copy(tokens.begin(), tokens.end(), tokens_.begin());
    rows_.rows = int64_t(from.size());
    rows_.has_previous = true;
  }

 private:
  // Row i of `to` is row from[i] of `values`, which it may overlap; of each the first `count` of `stride` values.
  void gather(const std::vector<int64_t>& from, const float* values, int64_t stride, int64_t count, float* to) {
    gathered_.resize(from.size() * count);
    for (size_t i = 0; i < from.size(); ++i) std::copy_n(values + from[i] * stride, count, &gathered_[i * count]);
    for (size_t i = 0; i < from.size(); ++i) std::copy_n(&gathered_[i * count], count, to + int64_t(i) * stride);
  }

  cpu::Dense<float, W> layer(const char* name, ScalarType type, const Tensor& packed, const Tensor& scale,
                             const Tensor& bias, int64_t units, int64_t gates, int64_t in_features) {
    int64_t values;
    if (units < 1 || in_features < 1 || __builtin_mul_overflow(units * gates, in_features, &values) ||
        values > (int64_t(1) << 40))
      invalid(name, ": expected a layer, received ", units, " units of ", in_features, " features");
    return {values_.packed<W>(name, packed, type, kernels_.gates_packed_size(units, gates, in_features)),
            values_.may(name, scale, {gates * units}), values_.may(name, bias, {gates * units}), units, in_features};
  }

  void add_cells(const Description& d, ScalarType type, const Tensor& states, int64_t count, int64_t per_cell) {
    const Tensor before = dense(states);
    const float* from = data<float>(before);
    const int64_t values = given_rows * size;
    outputs_of_.resize(count);
    for (int64_t i = 0; i < count; ++i) {
      const Tensor* t = &d.cells[i * kPerCell];
      const int64_t in_features = i > 0 ? size : speller_.embedding_size + (d.feeds_context ? context_size : 0);
      cpu::SpellerCell<float, W> cell{};
      cell.input = layer("cells: W_ih", type, t[0], t[2], t[4], size, gates_, in_features);
      cell.packed_hh = values_.packed<W>("cells: W_hh", t[1], type, kernels_.gates_packed_size(size, gates_, size));
      cell.scale_hh = values_.may("cells: scale of W_hh", t[3], {gates_ * size});
      cell.bias_n = values_.may("cells: bias_n", t[5], {size});
      cell.x = values_.scratch(states, rows, in_features);
      cell.h = values_.scratch(states, 2 * rows, size);
      std::copy_n(from, values, cell.h);
      from += values;
      if (per_cell == 2) {
        cell.c = values_.scratch(states, rows, size);
        std::copy_n(from, values, cell.c);
        from += values;
      }
      cells_.push_back(cell);
    }
    rows_.features = values_.scratch(states, rows, size + context_size);
    for (int64_t i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      outputs_of_[i] = row_pointers(last ? rows_.features : cells_[i + 1].x, rows, last ? size + context_size : size);
      cells_[i].outputs = outputs_of_[i].data();
    }
    speller_.cells = cells_.data();
    speller_.cell_count = int(count);
  }

  void add_attention(const Description& d, ScalarType type, int64_t attended) {
    check_count("attention", kPerAttention, d.attention.size());
    auto& a = speller_.attention;
    const bool mean = d.scores == "mean", additive = d.scores == "additive";
    if (!mean && !additive && d.scores != "dot") invalid("scores: expected mean, dot or additive, received ", d.scores);
    a.scores = mean ? cpu::SpellerScores::kMean : additive ? cpu::SpellerScores::kAdditive : cpu::SpellerScores::kDot;
    if (d.heads < 1 || attended % d.heads || context_size % d.heads || (d.heads > 1 && d.scores != "dot"))
      invalid("heads: expected a divisor of ", attended, " and ", context_size, " (1 but for dot), received ", d.heads);
    const Tensors& t = d.attention;
    a.projects = given(t[0]);
    if (a.projects)
      a.query = layer("attention: W", type, t[0], t[1], t[2], attended, 1, size);
    else if (!mean && size != attended)
      invalid("attention: expected a projection from ", size, " to the ", attended, " features of keys, received none");
    a.size = attended;
    a.heads = d.heads;
    a.scale = float(d.scale);
    a.energy = additive ? values_.need("attention: energy", t[3], {attended}) : nullptr;
    a.kernel_size = 1;
    if (additive && given(t[4])) {
      a.location = values_.need("attention: location", t[4], {kAny, attended});
      a.location_bias = values_.need("attention: bias of location", t[5], {attended});
      a.kernel_size = t[4].size(0);
      if (a.kernel_size % 2 == 0) invalid("attention: expected a location of odd size, received ", a.kernel_size);
    }
    a.smoothing = d.smoothing;
  }

  void add_outputs(const Description& d, ScalarType type) {
    check_count("outputs", kPerOutput * d.widths.size(), d.outputs.size());
    if (d.widths.empty() || d.widths.back() != speller_.num_tokens)
      invalid("widths: expected one or more, the last the ", speller_.num_tokens, " of embedding");
    for (const int64_t width : d.widths)
      if (width < 1 || width > (int64_t(1) << 31)) invalid("widths: expected sizes of layers, received ", width);
    const int64_t all = size + context_size;
    if (d.features_begin < 0 || d.features_begin > size)
      invalid("features_begin: expected 0 to ", size, ", received ", d.features_begin);
    // Whether the layers read the query alone follows from the size of the first one.
    const Tensor& first = d.outputs[0];
    check("outputs: W", first).dtype(type).dim(1);
    int64_t in_features = all - d.features_begin;
    if (d.features_begin == 0 && first.numel() == kernels_.gates_packed_size(d.widths[0], 1, size)) in_features = size;
    widest_ = 1;
    for (size_t i = 0; i < d.widths.size(); ++i) {
      const Tensor* t = &d.outputs[i * kPerOutput];
      layers_.push_back(layer("outputs: W", type, t[0], t[1], t[2], d.widths[i], 1, in_features));
      in_features = d.widths[i];
      widest_ = std::max(widest_, in_features);
    }
    speller_.features_begin = d.features_begin;
    speller_.outputs = layers_.data();
    speller_.output_count = int(layers_.size());
  }

  void add_rows(const Tensor& like, const Tensor& context, const std::optional<Tensor>& previous, int64_t attended,
                int64_t heads) {
    rows_.rows = given_rows;
    rows_.rows_per_memory = given_rows / memories;
    rows_.tokens = tokens_.data();
    rows_.origins = origins_.data();
    rows_.frames_of = frames_of_.data();
    rows_.gates_x = values_.scratch(like, rows, gates_ * size);
    rows_.query = values_.scratch(like, rows, attended);
    rows_.scores = values_.scratch(like, rows * heads, frames);
    for (float*& hidden : rows_.hidden) hidden = values_.scratch(like, rows, widest_);
    logits = new_output(like, {rows, num_tokens()});
    weights = new_output(like, {rows, frames});
    rows_.logits = mutable_data<float>(logits);
    rows_.weights = mutable_data<float>(weights);
    check("context", context).dtype(ScalarType::Float).shape({given_rows, context_size});
    const Tensor before = dense(context);
    for (int64_t i = 0; i < given_rows; ++i)
      std::copy_n(data<float>(before) + i * context_size, context_size,
                  rows_.features + i * (size + context_size) + size);
    check("previous", previous).dtype(ScalarType::Float).shape({given_rows, frames});
    rows_.has_previous = previous.has_value();
    if (previous) {
      const Tensor p = dense(*previous);
      std::copy_n(data<float>(p), given_rows * frames, rows_.weights);
    }
  }

  const cpu::Kernels<float>& kernels_;
  const int64_t gates_;
  int64_t widest_ = 1;
  Values values_;
  cpu::Speller<float, W> speller_{};
  cpu::SpellerMemory<float> memory_{};
  cpu::SpellerRows<float> rows_{};
  std::vector<cpu::SpellerCell<float, W>> cells_;
  std::vector<cpu::Dense<float, W>> layers_;
  std::vector<std::vector<float*>> outputs_of_;
  std::vector<int64_t> lengths_, tokens_, origins_, frames_of_;
  std::vector<float> gathered_;
};

}  // namespace asrkern

#include <algorithm>
#include <cstdint>

#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// Integers [rows] of which the sum is `total`: sums of those before each, and the total.
std::vector<int64_t> starts_of(const Tensor& lengths, const char* name, const char* of, int64_t total) {
  check(name, lengths).dim(1);
  const std::vector<int64_t> values = read_lengths(lengths, name, lengths.size(0), total);
  std::vector<int64_t> starts(values.size() + 1, 0);
  // Up to the first sum that is too much: further ones might overflow.
  size_t i = 0;
  for (; i < values.size() && starts[i] <= total; ++i) starts[i + 1] = starts[i] + values[i];
  if (starts[i] != total)
    invalid(name, ": expected a sum of ", total, ", the vectors of ", of, ", received ",
            i < values.size() ? "at least " : "", starts[i]);
  return starts;
}

int64_t longest(const std::vector<int64_t>& starts) {
  int64_t result = 0;
  for (size_t i = 1; i < starts.size(); ++i) result = std::max(result, starts[i] - starts[i - 1]);
  return result;
}

// Features of all heads together. Where tensors are empty, the number of heads is anything.
int64_t of_all_heads(int64_t heads, int64_t features) {
  int64_t product;
  if (__builtin_mul_overflow(heads, features, &product))
    invalid("heads: expected at most ", INT64_MAX / features, " of ", features, " features, received ", heads);
  return product;
}

// The tensor itself where rows are contiguous.
Tensor dense_rows(const Tensor& tensor) { return tensor.stride(1) == 1 ? tensor : dense(tensor); }

template <class T>
cpu::HeadRows<const T> head_rows(const Tensor& tensor) {
  return {data<T>(tensor), tensor.stride(0)};
}

Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& query_lengths,
                 const Tensor& key_lengths, const std::optional<Tensor>& bias, int64_t heads, int64_t key_heads,
                 bool causal, double scale) {
  return with_dtype(query, "query", [&](auto type) {
    using T = decltype(type);
    check("query", query).dim(2);
    check("key", key).dtype(query).dim(2);
    check("value", value).dtype(query).shape({key.size(0), kAny});
    if (heads < 1 || key_heads < 1 || heads % key_heads)
      invalid("heads, key_heads: expected a multiple of key_heads, from 1, received ", heads, " and ", key_heads);
    const int64_t width = query.size(1) / heads, value_width = value.size(1) / key_heads;
    if (width * heads != query.size(1) || width * key_heads != key.size(1))
      invalid("query, key: expected ", heads, " and ", key_heads, " heads of one width, received ", query.size(1),
              " and ", key.size(1), " features");
    if (value_width * key_heads != value.size(1))
      invalid("value: expected ", key_heads, " heads, received ", value.size(1), " features");
    const std::vector<int64_t> queries = starts_of(query_lengths, "query_lengths", "query", query.size(0));
    const std::vector<int64_t> keys = starts_of(key_lengths, "key_lengths", "key", key.size(0));
    if (keys.size() != queries.size())
      invalid("key_lengths: expected ", queries.size() - 1, " integers, as many as query_lengths, received ",
              keys.size() - 1);
    const int64_t rows = int64_t(queries.size()) - 1;
    cpu::AttentionBias<T> added;
    std::optional<Tensor> b;
    if (bias) {
      check("bias", bias).dtype(query).dim(4);
      const std::span<const int64_t> sizes = sizes_of(*bias);
      const bool good = (sizes[0] == 1 || sizes[0] == rows) && (sizes[1] == 1 || sizes[1] == heads) &&
                        (sizes[2] == 1 || sizes[2] >= longest(queries)) && sizes[3] >= longest(keys);
      if (!good)
        invalid("bias: expected shape (", rows, " or 1, ", heads, " or 1, at least ", longest(queries),
                " or 1, at least ", longest(keys), "), received ", shape_text(sizes));
      b = dense(bias);
      added = {data<T>(*b), sizes[0] == 1 ? 0 : sizes[1] * sizes[2] * sizes[3], sizes[1] == 1 ? 0 : sizes[2] * sizes[3],
               sizes[2] == 1 ? 0 : sizes[3]};
    }
    Tensor output = new_output(query, {query.size(0), of_all_heads(heads, value_width)});
    if (output.numel() == 0) return output;
    const Tensor q = dense_rows(query), k = dense_rows(key), v = dense_rows(value);
    const cpu::ThreadPool pool = torch_threads();
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    Tensor scratch = allocate(query, {kernels.attention_scratch_size(pool, longest(keys), width)});
    kernels.attention(pool, {.rows = rows,
                             .query_starts = queries.data(),
                             .key_starts = keys.data(),
                             .longest_query = longest(queries),
                             .longest_key = longest(keys),
                             .heads = heads,
                             .key_heads = key_heads,
                             .width = width,
                             .value_width = value_width,
                             .query = head_rows<T>(q),
                             .key = head_rows<T>(k),
                             .value = head_rows<T>(v),
                             .bias = added,
                             .causal = causal,
                             .scale = T(scale),
                             .output = mutable_data<T>(output),
                             .scratch = mutable_data<T>(scratch)});
    return output;
  });
}

template <class T, class W>
Tensor run_heads(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& scale,
                 const std::optional<Tensor>& bias, int64_t heads, bool transposed,
                 const cpu::LinearKernels<T, W>& kernels) {
  check("input", input).dim(2);
  check("weight", weight).dim(2);
  if (heads < 1 || weight.size(0) % heads)
    invalid("weight: expected rows of ", heads, " heads, received shape ", shape_text(sizes_of(weight)));
  const int64_t inner = weight.size(0) / heads, outer = weight.size(1);
  const int64_t in_features = transposed ? inner : outer, out_features = transposed ? outer : inner;
  check("input", input).shape({kAny, of_all_heads(heads, in_features)});
  if (transposed && (scale || bias)) invalid("scale, bias: expected None for a transposed weight, received a tensor");
  check("scale", scale).dtype(input).shape({weight.size(0)});
  check("bias", bias).dtype(input).shape({weight.size(0)});
  const int64_t rows = input.size(0);
  Tensor output = new_output(input, {rows, of_all_heads(heads, out_features)});
  if (output.numel() == 0) return output;
  const Tensor x = dense(input), w = dense(weight);
  const std::optional<Tensor> a = dense(scale), b = dense(bias);
  const cpu::ThreadPool pool = torch_threads();
  Tensor scratch = allocate(input, {kernels.scratch_size(pool, rows, in_features)});
  for (int64_t head = 0; head < heads; ++head) {
    const T* x_head = data<T>(x) + head * in_features;
    T* y_head = mutable_data<T>(output) + head * out_features;
    kernels.run(pool, {.x = row_pointers(x_head, rows, heads * in_features).data(),
                       .rows = rows,
                       .weight = data<W>(w) + head * inner * outer,
                       .out_features = out_features,
                       .in_features = in_features,
                       .y = row_pointers(y_head, rows, heads * out_features).data(),
                       .scratch = mutable_data<T>(scratch),
                       .scale = a ? data<T>(*a) + head * inner : nullptr,
                       .bias = b ? data<T>(*b) + head * inner : nullptr,
                       .transposed = transposed});
  }
  return output;
}

Tensor linear_heads(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& scale,
                    const std::optional<Tensor>& bias, int64_t heads, bool transposed) {
  return with_dtype(input, "input", [&](auto type) {
    using T = decltype(type);
    check("weight", weight);
    if constexpr (std::is_same_v<T, float>) {
      const ScalarType stored = dtype_of(weight);
      if (stored == ScalarType::Char)
        return run_heads<T, int8_t>(input, weight, scale, bias, heads, transposed, cpu::kernels<T>().linear_int8);
      if (stored == ScalarType::BFloat16)
        return run_heads<T, cpu::Bf16>(input, weight, scale, bias, heads, transposed, cpu::kernels<T>().linear_bf16);
    }
    check("weight", weight).dtype(input);
    return run_heads<T, T>(input, weight, scale, bias, heads, transposed, cpu::kernels<T>().linear);
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"attention", &asrkern::attention>(m);
  asrkern::implement<"linear_heads", &asrkern::linear_heads>(m);
}

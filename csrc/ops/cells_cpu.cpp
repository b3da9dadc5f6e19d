#include <numeric>
#include <tuple>

#include "csrc/ops/common.h"

namespace asrkern {
namespace {

// The arguments of a cell as it was called; null for what is not there.
struct CellArguments {
  const Tensor& input;
  const Tensor& h;
  const Tensor& weight_ih;
  const std::optional<Tensor>& scale_ih;
  const Tensor& weight_hh;
  const std::optional<Tensor>& scale_hh;
  const std::optional<Tensor>& bias_ih;
  const std::optional<Tensor>& bias_hh;
};

// Everything but the weights. Returns the hidden_size.
int64_t check_rows(const CellArguments& a, int64_t gates) {
  check("input", a.input).dim(2);
  check("h", a.h).dtype(a.input).shape({a.input.size(0), kAny});
  const int64_t size = a.h.size(1);
  if (size < 1) invalid("h: expected at least one feature, received shape ", shape_text(sizes_of(a.h)));
  check("bias_ih", a.bias_ih).dtype(a.input).shape({gates * size});
  check("bias_hh", a.bias_hh)
      .given(a.bias_ih.has_value(), a.bias_ih ? "beside bias_ih" : "without bias_ih")
      .dtype(a.input)
      .shape({gates * size});
  check("scale_ih", a.scale_ih).dtype(a.input).shape({gates * size});
  check("scale_hh", a.scale_hh).dtype(a.input).shape({gates * size});
  return size;
}

// Returns the hidden_size.
int64_t check_cell(const CellArguments& a, int64_t gates) {
  const int64_t size = check_rows(a, gates);
  check("weight_ih", a.weight_ih).shape({gates * size, a.input.size(1)});
  check("weight_hh", a.weight_hh).dtype(a.weight_ih).shape({gates * size, size});
  return size;
}

// y = x Wᵀ · scale + bias of [rows, in_features].
template <class T, class W>
void multiply(const cpu::ThreadPool& pool, const cpu::LinearKernels<T, W>& linear, const Tensor& x,
              const Tensor& weight, const std::optional<Tensor>& scale, const T* bias, T* y) {
  const int64_t rows = x.size(0), in_features = weight.size(1), out_features = weight.size(0);
  const Tensor values = dense(x), w = dense(weight);
  const std::optional<Tensor> factors = dense(scale);
  Tensor scratch = allocate(x, {linear.scratch_size(pool, rows, in_features)});
  linear.run(pool, {.x = row_pointers(data<T>(values), rows, in_features).data(),
                    .rows = rows,
                    .weight = data<W>(w),
                    .out_features = out_features,
                    .in_features = in_features,
                    .y = row_pointers(y, rows, out_features).data(),
                    .scratch = mutable_data<T>(scratch),
                    .scale = data_or_null<T>(factors),
                    .bias = bias});
}

// bias_ih with the first `summed` elements of bias_hh; none without biases.
template <class T>
std::vector<T> summed_biases(const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
                             int64_t summed) {
  if (!bias_ih) return {};
  std::vector<T> bias(data<T>(*bias_ih), data<T>(*bias_ih) + bias_ih->numel());
  for (int64_t j = 0; j < summed; ++j) bias[j] += data<T>(*bias_hh)[j];
  return bias;
}

struct CellResult {
  Tensor h, reserve;
};

// The first `summed_bias` elements of bias_hh join bias_ih. complete(pass, bias_hh) gives the cell's own pass.
template <class Cell, class Kernels, class W, class Complete>
CellResult run_cell(const CellArguments& a, const Kernels& cell,
                    const cpu::LinearKernels<typename Cell::Value, W>& linear, int64_t size, int64_t summed_bias,
                    bool save_reserve, const Complete& complete) {
  using T = typename Cell::Value;
  const int64_t rows = a.input.size(0), gates = Cell::kGates * size;
  Tensor h_next = new_output(a.input, {rows, size});
  Tensor reserve = new_output(a.input, {save_reserve ? rows : 0, Cell::kSaved * size});
  if (rows == 0) return {h_next, reserve};
  const cpu::ThreadPool pool = torch_threads();
  const std::optional<Tensor> bias_ih = dense(a.bias_ih), bias_hh = dense(a.bias_hh);
  const std::vector<T> bias = summed_biases<T>(bias_ih, bias_hh, summed_bias);
  Tensor gates_x = allocate(a.input, {rows, gates}), gates_h = allocate(a.input, {rows, gates});
  const Tensor h = dense(a.h);
  multiply<T, W>(pool, linear, a.input, a.weight_ih, a.scale_ih, bias_ih ? bias.data() : nullptr,
                 mutable_data<T>(gates_x));
  multiply<T, W>(pool, linear, h, a.weight_hh, a.scale_hh, nullptr, mutable_data<T>(gates_h));
  cpu::RecurrentForward<T, T> pass{};
  pass.hidden_size = size;
  pass.gates_x = data<T>(gates_x);
  pass.h0 = data<T>(h);
  pass.h_n = mutable_data<T>(h_next);
  pass.reserve = save_reserve ? mutable_data<T>(reserve) : nullptr;
  cell.cell_forward(pool, complete(pass, data_or_null<T>(bias_hh)), data<T>(gates_h), rows);
  return {h_next, reserve};
}

// f(T(), linear's kernels) by the dtypes of input and weights: float64 alone, or float32 with any stored type.
template <class F>
auto with_types(const CellArguments& a, const F& f) {
  return with_dtype(a.input, "input", [&](auto type) {
    using T = decltype(type);
    const cpu::Kernels<T>& kernels = cpu::kernels<T>();
    if constexpr (std::is_same_v<T, float>) {
      check("weight_ih", a.weight_ih).dtype({ScalarType::Float, ScalarType::BFloat16, ScalarType::Char});
      if (a.weight_ih.scalar_type() == ScalarType::Char) return f(type, kernels.linear_int8);
      if (a.weight_ih.scalar_type() == ScalarType::BFloat16) return f(type, kernels.linear_bf16);
    } else {
      check("weight_ih", a.weight_ih).dtype(a.input);
    }
    return f(type, kernels.linear);
  });
}

std::tuple<Tensor, Tensor> gru_cell(const Tensor& input, const Tensor& h, const Tensor& weight_ih,
                                    const std::optional<Tensor>& scale_ih, const Tensor& weight_hh,
                                    const std::optional<Tensor>& scale_hh, const std::optional<Tensor>& bias_ih,
                                    const std::optional<Tensor>& bias_hh, bool save_reserve) {
  const CellArguments a{input, h, weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh};
  const int64_t size = check_cell(a, 3);
  return with_types(a, [&](auto type, const auto& linear) {
    using T = decltype(type);
    // bias_hh's n part stays inside the reset gate's product.
    const auto [h_next, reserve] =
        run_cell<cpu::GruCell<T>>(a, cpu::kernels<T>().gru, linear, size, 2 * size, save_reserve,
                                  [&](const cpu::RecurrentForward<T, T>& pass, const T* bias) {
                                    return cpu::GruForward<T>{pass, bias ? bias + 2 * size : nullptr};
                                  });
    return std::tuple(h_next, reserve);
  });
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input, const Tensor& h, const Tensor& c,
                                             const Tensor& weight_ih, const std::optional<Tensor>& scale_ih,
                                             const Tensor& weight_hh, const std::optional<Tensor>& scale_hh,
                                             const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
                                             bool save_reserve) {
  const CellArguments a{input, h, weight_ih, scale_ih, weight_hh, scale_hh, bias_ih, bias_hh};
  const int64_t size = check_cell(a, 4);
  check("c", c).dtype(input).shape({input.size(0), size});
  return with_types(a, [&](auto type, const auto& linear) {
    using T = decltype(type);
    Tensor c_next = new_output(input, {input.size(0), size});
    const Tensor before = dense(c);
    std::copy_n(data<T>(before), before.numel(), mutable_data<T>(c_next));
    const auto [h_next, reserve] =
        run_cell<cpu::LstmCell<T>>(a, cpu::kernels<T>().lstm, linear, size, 4 * size, save_reserve,
                                   [&](const cpu::RecurrentForward<T, T>& pass, const T*) {
                                     return cpu::LstmForward<T>{pass, mutable_data<T>(c_next)};
                                   });
    return std::tuple(h_next, c_next, reserve);
  });
}

// run_cell over weights of speller_pack, which stand in the arguments in place of the weights; step: the kernel among
// those for W.
template <template <class, class> class Cell, class Complete, class Step>
CellResult run_packed(const CellArguments& a, int64_t summed_gates, bool save_reserve, const Complete& complete,
                      const Step& step) {
  check("input", a.input).dtype(ScalarType::Float);
  constexpr int64_t kGates = Cell<float, float>::kGates;
  const int64_t size = check_rows(a, kGates), rows = a.input.size(0), features = a.input.size(1);
  check("packed_ih", a.weight_ih).dtype({ScalarType::Float, ScalarType::BFloat16, ScalarType::Char}).dim(1);
  check("packed_hh", a.weight_hh).dtype(a.weight_ih).dim(1);
  const cpu::Kernels<float>& kernels = cpu::kernels<float>();
  int64_t values;
  if (__builtin_mul_overflow(kGates * (features + 64), size + 64, &values) || values > (int64_t(1) << 40))
    invalid("input, h: expected sizes of a cell, received ", features, " and ", size, " features");
  for (const auto& [name, packed, in_features] :
       {std::tuple("packed_ih", &a.weight_ih, features), std::tuple("packed_hh", &a.weight_hh, size)}) {
    const int64_t expected = kernels.gates_packed_size(size, kGates, in_features);
    if (packed->numel() != expected)
      invalid(name, ": expected ", expected, " values, packed for ", size, " units, ", in_features,
              " features and this instruction set, received ", packed->numel());
  }
  if (save_reserve && a.weight_ih.scalar_type() != ScalarType::Float)
    invalid("save_reserve: expected False, for rounded weights have no gradients, received True");
  Tensor h_next = new_output(a.input, {rows, size});
  Tensor reserve = new_output(a.input, {save_reserve ? rows : 0, Cell<float, float>::kSaved * size});
  if (rows == 0) return {h_next, reserve};
  const Tensor x = dense(a.input), h = dense(a.h), packed_ih = dense(a.weight_ih), packed_hh = dense(a.weight_hh);
  const std::optional<Tensor> scale_ih = dense(a.scale_ih), scale_hh = dense(a.scale_hh);
  const std::optional<Tensor> bias_ih = dense(a.bias_ih), bias_hh = dense(a.bias_hh);
  const std::vector<float> bias = summed_biases<float>(bias_ih, bias_hh, summed_gates * size);
  Tensor gates_x = allocate(a.input, {rows, kGates * size});
  const std::vector<float*> outputs = row_pointers(mutable_data<float>(h_next), rows, size);
  std::vector<int64_t> frames(rows);
  std::iota(frames.begin(), frames.end(), 0);
  const auto run = [&](auto type, const auto& of_type) {
    using W = decltype(type);
    cpu::RecurrentForward<float, W> pass{};
    pass.hidden_size = size;
    pass.weight_packed = data<W>(packed_hh);
    pass.scale = data_or_null<float>(scale_hh);
    pass.h0 = data<float>(h);
    pass.h = mutable_data<float>(h_next);
    pass.outputs = outputs.data();
    pass.reserve = save_reserve ? mutable_data<float>(reserve) : nullptr;
    const cpu::Dense<float, W> input{data<W>(packed_ih), data_or_null<float>(scale_ih),
                                     bias.empty() ? nullptr : bias.data(), size, features};
    const cpu::CellStep<float, W> rest{input, data<float>(x), mutable_data<float>(gates_x), rows, frames.data()};
    step(of_type)(torch_threads(), complete(pass, data_or_null<float>(bias_hh)), rest);
  };
  switch (a.weight_ih.scalar_type()) {
    case ScalarType::Char:
      run(int8_t(), kernels.speller_int8);
      break;
    case ScalarType::BFloat16:
      run(cpu::Bf16(), kernels.speller_bf16);
      break;
    default:
      run(float(), kernels.speller);
  }
  return {h_next, reserve};
}

std::tuple<Tensor, Tensor> gru_cell_prepacked(const Tensor& input, const Tensor& h, const Tensor& packed_ih,
                                              const std::optional<Tensor>& scale_ih, const Tensor& packed_hh,
                                              const std::optional<Tensor>& scale_hh,
                                              const std::optional<Tensor>& bias_ih,
                                              const std::optional<Tensor>& bias_hh, bool save_reserve) {
  const CellArguments a{input, h, packed_ih, scale_ih, packed_hh, scale_hh, bias_ih, bias_hh};
  const auto complete = [&]<class W>(const cpu::RecurrentForward<float, W>& pass, const float* bias) {
    return cpu::GruForward<float, W>{pass, bias ? bias + 2 * pass.hidden_size : nullptr};
  };
  const auto [h_next, reserve] =
      run_packed<cpu::GruCell>(a, 2, save_reserve, complete, [](const auto& kernels) { return kernels.gru_step; });
  return {h_next, reserve};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_prepacked(const Tensor& input, const Tensor& h, const Tensor& c,
                                                       const Tensor& packed_ih, const std::optional<Tensor>& scale_ih,
                                                       const Tensor& packed_hh, const std::optional<Tensor>& scale_hh,
                                                       const std::optional<Tensor>& bias_ih,
                                                       const std::optional<Tensor>& bias_hh, bool save_reserve) {
  check("input", input).dim(2);
  check("h", h).dim(2);
  check("c", c).dtype(input).shape({input.size(0), h.size(1)});
  const CellArguments a{input, h, packed_ih, scale_ih, packed_hh, scale_hh, bias_ih, bias_hh};
  check("input", input).dtype(ScalarType::Float);
  Tensor c_next = new_output(input, sizes_of(c));
  const Tensor before = dense(c);
  std::copy_n(data<float>(before), before.numel(), mutable_data<float>(c_next));
  const auto complete = [&]<class W>(const cpu::RecurrentForward<float, W>& pass, const float*) {
    return cpu::LstmForward<float, W>{pass, mutable_data<float>(c_next)};
  };
  const auto [h_next, reserve] =
      run_packed<cpu::LstmCell>(a, 4, save_reserve, complete, [](const auto& kernels) { return kernels.lstm_step; });
  return {h_next, c_next, reserve};
}

std::tuple<Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad_h, const Tensor& h, const Tensor& reserve) {
  check("grad_h", grad_h).dim(2);
  const int64_t rows = grad_h.size(0), size = grad_h.size(1);
  return with_dtype(grad_h, "grad_h", [&](auto type) {
    using T = decltype(type);
    check("h", h).dtype(grad_h).shape({rows, size});
    check("reserve", reserve).dtype(grad_h).shape({rows, cpu::GruCell<T>::kSaved * size});
    const Tensor dy = dense(grad_h), before = dense(h), kept = dense(reserve);
    const std::vector<const T*> grads = row_pointers(data<T>(dy), rows, size);
    Tensor of_x = new_output(grad_h, {rows, 3 * size}), of_h = new_output(grad_h, {rows, 3 * size});
    Tensor of_n = allocate(grad_h, {rows, size}), grad_before = allocate_zeros(grad_h, {rows, size});
    cpu::RecurrentBackward<T> pass{};
    pass.hidden_size = size;
    pass.h0 = data<T>(before);
    pass.grad_outputs = grads.data();
    pass.reserve = data<T>(kept);
    pass.grad_h = mutable_data<T>(grad_before);
    pass.grad_gates = mutable_data<T>(of_h);
    pass.grad_last_x = mutable_data<T>(of_n);
    cpu::kernels<T>().gru.cell_backward(torch_threads(), pass, rows);
    for (int64_t row = 0; row < rows; ++row) {
      T* to = std::copy_n(data<T>(of_h) + row * 3 * size, 2 * size, mutable_data<T>(of_x) + row * 3 * size);
      std::copy_n(data<T>(of_n) + row * size, size, to);
    }
    return std::tuple(of_x, of_h, grad_before);
  });
}

std::tuple<Tensor, Tensor> lstm_cell_backward(const Tensor& grad_h, const Tensor& grad_c, const Tensor& c,
                                              const Tensor& reserve) {
  check("grad_h", grad_h).dim(2);
  const int64_t rows = grad_h.size(0), size = grad_h.size(1);
  return with_dtype(grad_h, "grad_h", [&](auto type) {
    using T = decltype(type);
    check("grad_c", grad_c).dtype(grad_h).shape({rows, size});
    check("c", c).dtype(grad_h).shape({rows, size});
    check("reserve", reserve).dtype(grad_h).shape({rows, cpu::LstmCell<T>::kSaved * size});
    const Tensor dy = dense(grad_h), dc = dense(grad_c), before = dense(c), kept = dense(reserve);
    const std::vector<const T*> grads = row_pointers(data<T>(dy), rows, size);
    Tensor gates = new_output(grad_h, {rows, 4 * size}), grad_before = new_output(grad_h, {rows, size});
    std::copy_n(data<T>(dc), dc.numel(), mutable_data<T>(grad_before));
    // What other ways than W_hh bring to the state before: nothing.
    Tensor carried = allocate_zeros(grad_h, {rows, size});
    cpu::LstmBackward<T> pass{};
    pass.hidden_size = size;
    pass.h0 = data<T>(before);
    pass.grad_outputs = grads.data();
    pass.reserve = data<T>(kept);
    pass.grad_h = mutable_data<T>(carried);
    pass.grad_gates = mutable_data<T>(gates);
    pass.c0 = data<T>(before);
    pass.grad_c = mutable_data<T>(grad_before);
    cpu::kernels<T>().lstm.cell_backward(torch_threads(), pass, rows);
    return std::tuple(gates, grad_before);
  });
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) {
  asrkern::implement<"gru_cell", &asrkern::gru_cell>(m);
  asrkern::implement<"gru_cell_backward", &asrkern::gru_cell_backward>(m);
  asrkern::implement<"lstm_cell", &asrkern::lstm_cell>(m);
  asrkern::implement<"gru_cell_prepacked", &asrkern::gru_cell_prepacked>(m);
  asrkern::implement<"lstm_cell_prepacked", &asrkern::lstm_cell_prepacked>(m);
  asrkern::implement<"lstm_cell_backward", &asrkern::lstm_cell_backward>(m);
}

#include <torch/csrc/stable/accelerator.h>

#include <initializer_list>
#include <limits>
#include <tuple>
#include <utility>

#include "csrc/ops/packed_order.h"
#include "kernels/rnn/cuda/gru.h"

namespace asrkern {
namespace {

using cuda::GruType;

void check_cuda(int error, const char* what) {
  if (error)
    throw std::runtime_error(std::string("asrkern::gru: ") + what + " failed with CUDA error " + std::to_string(error));
}

GruType type_of(const Tensor& input) {
  const ScalarType type = dtype_of(input);
  if (type == ScalarType::Float) return GruType::kFloat;
  if (type == ScalarType::BFloat16) return GruType::kBf16;
  if (type == ScalarType::Half) return GruType::kHalf;
  invalid("input: expected dtype float32, bfloat16 or float16 on CUDA, received ", dtype_text(type));
}

void* current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

// [D · rows, columns]: the matrices of both directions, one above the other.
Tensor stacked(const Tensor& forward, const std::optional<Tensor>& reverse) {
  if (!reverse) return dense(forward);
  const int64_t rows = forward.size(0);
  Tensor both = allocate(forward, {2 * rows, forward.size(1)});
  Tensor first = torch::stable::narrow(both, 0, 0, rows), second = torch::stable::narrow(both, 0, rows, rows);
  torch::stable::copy_(first, forward);
  torch::stable::copy_(second, *reverse);
  return both;
}

Tensor transposed(const Tensor& matrix) { return torch::stable::transpose(matrix, 0, 1); }

void check_devices(const Tensor& input, std::initializer_list<std::pair<const char*, const Tensor*>> others) {
  check("input", input);
  if (!input.is_cuda()) invalid("input: expected a tensor on a GPU, as others are, received another");
  for (const auto& [name, tensor] : others) Argument(name, tensor).device(input);
}

// A layer as it was called. Its rows are sorted on the device; the host never sees the lengths.
struct CudaLayer {
  CudaLayer(const Tensor& input, const std::optional<Tensor>& lengths, const std::optional<Tensor>& batch_sizes,
            const Tensor& weight_ih, const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
            const std::optional<Tensor>& weight_hh_reverse, bool batch_first)
      : type(type_of(input)),
        stream(current_stream(input)),
        input(dense(input)),
        weight_ih(stacked(weight_ih, weight_ih_reverse)),
        weight_hh{dense(weight_hh), dense(weight_hh_reverse.value_or(weight_hh))},
        directions(weight_hh_reverse ? 2 : 1),
        size(weight_hh.size(1)),
        features(weight_ih.size(1)),
        frames(batch_sizes ? input.size(0) : input.size(0) * input.size(1)),
        padded(lengths.has_value()) {
    if (frames > std::numeric_limits<int32_t>::max())
      invalid("input: expected fewer than 2^31 frames on CUDA, received ", frames);
    std::vector<int32_t> of_sorted;
    if (batch_sizes) {
      const PackedOrder packed = order_by_batch_sizes(*batch_sizes, frames);
      of_sorted.assign(packed.lengths.begin(), packed.lengths.end());
      rows = int(packed.lengths.size());
      steps = int(packed.active.size());
    } else {
      rows = int(input.size(batch_first ? 0 : 1));
      steps = int(input.size(batch_first ? 1 : 0));
    }
    if (rows == 0) return;
    order = allocate(input, {3 * rows + 2 * steps}, ScalarType::Int);
    int32_t* memory = mutable_data<int32_t>(order);
    const cuda::GruOrder args{rows,
                              steps,
                              batch_sizes.has_value(),
                              memory,
                              memory + rows,
                              memory + 2 * rows,
                              memory + 3 * rows,
                              memory + 3 * rows + steps};
    if (batch_sizes) check_cuda(cuda::store_lengths(of_sorted.data(), rows, args.given, stream), "storing lengths");
    const std::optional<Tensor> given = dense(lengths);
    check_cuda(cuda::gru_order(args, data_or_null<int64_t>(given), stream), "ordering rows");
    batch = {rows, steps, args.packed, batch_first, args.order, args.lengths, args.active, args.offsets};
    given_lengths = args.given;
  }

  // Memory for every frame of the input. Zeros if some frames are beyond a length, which nobody writes.
  Tensor of_frames(std::vector<int64_t> sizes) const {
    return padded ? allocate_zeros(input, sizes) : new_output(input, sizes);
  }

  // Fills in the fields that both passes share. The pointers are valid as long as the tensors in this object.
  template <class T>
  std::vector<Tensor> prepare(T& args, const GruPlan& plan, const Tensor* const* weights,
                              const std::optional<Tensor>& h0) const {
    const int64_t teams = gru_teams(plan, directions), bytes = cuda::value_bytes(type);
    const int64_t values = bytes == 4 ? exchange_values<float>(plan) : exchange_values<Bf16>(plan);
    const int64_t of_arrivals = teams * kArrivalStride * int64_t(sizeof(uint32_t));
    Tensor shared = allocate_zeros(input, {of_arrivals + teams * values * bytes}, ScalarType::Byte);
    Tensor state = allocate(input, {directions, rows, size}, ScalarType::Float);
    args.batch = batch;
    args.plan = plan;
    args.hidden_size = int(size);
    args.directions = directions;
    args.frames = frames;
    for (int d = 0; d < directions; ++d) args.weight[d] = weights[d]->const_data_ptr();
    args.h0 = h0 ? h0->const_data_ptr() : nullptr;
    args.state = mutable_data<float>(state);
    args.arrivals = mutable_data<uint32_t>(shared);
    args.exchange = mutable_data<char>(shared) + of_arrivals;
    return {shared, state};
  }

  // The input as [frames, features].
  Tensor flat_input() const { return torch::stable::reshape(input, {frames, features}); }

  // The same with zeros in frames beyond the lengths, whatever the caller has there.
  Tensor valid_input() const {
    if (!padded) return flat_input();
    Tensor copy = allocate(input, {frames, features});
    const cuda::ValidFrames args{rows,
                                 steps,
                                 batch.batch_first,
                                 given_lengths,
                                 features * cuda::value_bytes(type),
                                 input.const_data_ptr(),
                                 copy.mutable_data_ptr()};
    check_cuda(cuda::copy_valid_frames(args, stream), "copying frames");
    return copy;
  }

  GruType type;
  void* stream;
  Tensor input, weight_ih, weight_hh[2], order;
  int directions;
  int64_t size, features, frames;
  bool padded;
  int rows, steps;  // without rows nothing is launched, and the following are not set
  GruBatch batch{};
  const int32_t* given_lengths = nullptr;
};

std::tuple<Tensor, Tensor, Tensor> gru(const Tensor& input, const std::optional<Tensor>& lengths,
                                       const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0,
                                       const Tensor& weight_ih, const Tensor& weight_hh,
                                       const std::optional<Tensor>& bias_ih, const std::optional<Tensor>& bias_hh,
                                       const std::optional<Tensor>& weight_ih_reverse,
                                       const std::optional<Tensor>& weight_hh_reverse,
                                       const std::optional<Tensor>& bias_ih_reverse,
                                       const std::optional<Tensor>& bias_hh_reverse, bool batch_first,
                                       bool save_reserve) {
  check_devices(input, {{"lengths", pointer(lengths)},
                        {"h0", pointer(h0)},
                        {"weight_ih", &weight_ih},
                        {"weight_hh", &weight_hh},
                        {"bias_ih", pointer(bias_ih)},
                        {"bias_hh", pointer(bias_hh)},
                        {"weight_ih_reverse", pointer(weight_ih_reverse)},
                        {"weight_hh_reverse", pointer(weight_hh_reverse)},
                        {"bias_ih_reverse", pointer(bias_ih_reverse)},
                        {"bias_hh_reverse", pointer(bias_hh_reverse)}});
  check_layer(
      input, lengths, batch_sizes, batch_first, 3,
      {{&weight_ih, &weight_hh, pointer(bias_ih), pointer(bias_hh)},
       {pointer(weight_ih_reverse), pointer(weight_hh_reverse), pointer(bias_ih_reverse), pointer(bias_hh_reverse)}});
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const CudaLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                        batch_first);
  check("h0", h0).dtype(input).shape({layer.directions, layer.rows, layer.size});
  const Tensor gates_x = torch::stable::matmul(layer.flat_input(), transposed(layer.weight_ih));
  const std::optional<Tensor> b_ih[2] = {dense(bias_ih), dense(bias_ih_reverse)};
  const std::optional<Tensor> b_hh[2] = {dense(bias_hh), dense(bias_hh_reverse)}, initial = dense(h0);

  Tensor output = layer.of_frames(with_features(input, layer.directions * layer.size));
  Tensor h_n = new_output(layer.input, {layer.directions, layer.rows, layer.size});
  Tensor reserve = save_reserve ? new_output(layer.input, {layer.directions, layer.frames, 4 * layer.size})
                                : allocate(layer.input, {0});
  if (layer.rows == 0) return {output, h_n, reserve};

  GruPlan plan;
  check_cuda(cuda::gru_forward_plan(layer.type, int(layer.size), layer.rows, layer.directions, &plan), "planning");
  const Tensor* const weights[] = {&layer.weight_hh[0], &layer.weight_hh[1]};
  GruForward args = {};
  const std::vector<Tensor> memory = layer.prepare(args, plan, weights, initial);
  args.gates_x = gates_x.const_data_ptr();
  for (int d = 0; d < layer.directions; ++d) {
    args.bias_ih[d] = b_ih[d] ? b_ih[d]->const_data_ptr() : nullptr;
    args.bias_hh[d] = b_hh[d] ? b_hh[d]->const_data_ptr() : nullptr;
  }
  args.output = output.mutable_data_ptr();
  args.h_n = h_n.mutable_data_ptr();
  args.reserve = save_reserve ? reserve.mutable_data_ptr() : nullptr;
  check_cuda(cuda::gru_forward(layer.type, args, layer.stream), "the launch");
  return {output, h_n, reserve};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> gru_backward(
    const Tensor& grad_output, const Tensor& grad_h_n, const Tensor& input, const std::optional<Tensor>& lengths,
    const std::optional<Tensor>& batch_sizes, const std::optional<Tensor>& h0, const Tensor& weight_ih,
    const Tensor& weight_hh, const std::optional<Tensor>& weight_ih_reverse,
    const std::optional<Tensor>& weight_hh_reverse, const Tensor& output, const Tensor& reserve, bool batch_first) {
  check_devices(input, {{"grad_output", &grad_output},
                        {"grad_h_n", &grad_h_n},
                        {"lengths", pointer(lengths)},
                        {"h0", pointer(h0)},
                        {"weight_ih", &weight_ih},
                        {"weight_hh", &weight_hh},
                        {"weight_ih_reverse", pointer(weight_ih_reverse)},
                        {"weight_hh_reverse", pointer(weight_hh_reverse)},
                        {"output", &output},
                        {"reserve", &reserve}});
  check_layer(input, lengths, batch_sizes, batch_first, 3,
              {{&weight_ih, &weight_hh}, {pointer(weight_ih_reverse), pointer(weight_hh_reverse)}});
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const CudaLayer layer(input, lengths, batch_sizes, weight_ih, weight_hh, weight_ih_reverse, weight_hh_reverse,
                        batch_first);
  const int64_t directions = layer.directions, size = layer.size, frames = layer.frames;
  const std::vector<int64_t> output_sizes = with_features(input, directions * size);
  check("grad_output", grad_output).dtype(input).shape(output_sizes);
  check("grad_h_n", grad_h_n).dtype(input).shape({directions, layer.rows, size});
  check("h0", h0).dtype(input).shape({directions, layer.rows, size});
  check("output", output).dtype(input).shape(output_sizes);
  check("reserve", reserve).dtype(input).shape({directions, frames, 4 * size});
  if (layer.rows == 0)
    return {allocate_zeros(input, input.sizes()),
            allocate_zeros(input, {directions, 0, size}),
            allocate_zeros(input, {directions, 3 * size, layer.features}),
            allocate_zeros(input, {directions, 3 * size, size}),
            allocate_zeros(input, {directions, 3 * size}),
            allocate_zeros(input, {directions, 3 * size})};
  const Tensor dy = dense(grad_output), dh_n = dense(grad_h_n), y = dense(output), saved = dense(reserve);
  const std::optional<Tensor> initial = dense(h0);
  const Tensor weights[2] = {dense(transposed(layer.weight_hh[0])), dense(transposed(layer.weight_hh[1]))};
  Tensor grad_h0 = new_output(layer.input, {directions, layer.rows, size});
  Tensor gates_x = layer.of_frames({frames, directions * 3 * size});
  Tensor gates_h = layer.of_frames({directions, frames, 3 * size});
  Tensor before = layer.of_frames({directions, frames, size});

  GruPlan plan;
  check_cuda(cuda::gru_backward_plan(layer.type, int(size), layer.rows, layer.directions, &plan), "planning");
  const Tensor* const transposed_weights[] = {&weights[0], &weights[1]};
  GruBackward args = {};
  const std::vector<Tensor> memory = layer.prepare(args, plan, transposed_weights, initial);
  args.output = y.const_data_ptr();
  args.reserve = saved.const_data_ptr();
  args.grad_output = dy.const_data_ptr();
  args.grad_h_n = dh_n.const_data_ptr();
  args.grad_h0 = grad_h0.mutable_data_ptr();
  args.grad_gates_x = gates_x.mutable_data_ptr();
  args.grad_gates_h = gates_h.mutable_data_ptr();
  args.h_before = before.mutable_data_ptr();
  check_cuda(cuda::gru_backward(layer.type, args, layer.stream), "the launch");

  // One product over all frames for each gradient, instead of one product a step.
  using torch::stable::matmul;
  using torch::stable::reshape;
  const Tensor grad_input = reshape(matmul(gates_x, layer.weight_ih), input.sizes());
  const Tensor grad_weight_ih =
      reshape(matmul(transposed(gates_x), layer.valid_input()), {directions, 3 * size, layer.features});
  const Tensor grad_weight_hh = matmul(torch::stable::transpose(gates_h, 1, 2), before);
  const int64_t all_frames[] = {0}, frames_of_direction[] = {1};
  const Tensor grad_bias_ih = reshape(torch::stable::sum(gates_x, all_frames), {directions, 3 * size});
  const Tensor grad_bias_hh = torch::stable::sum(gates_h, frames_of_direction);
  return {grad_input, grad_h0, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh};
}

int64_t gru_cuda_rows(int64_t device, int64_t value_bytes, int64_t hidden_size, int64_t directions, bool backward) {
  const torch::stable::accelerator::DeviceGuard guard{int32_t(device)};
  const GruType type = value_bytes == 4 ? GruType::kFloat : GruType::kBf16;
  const auto plan_for = backward ? cuda::gru_backward_plan : cuda::gru_forward_plan;
  GruPlan plan;
  if (plan_for(type, int(hidden_size), 1, int(directions), &plan)) return 0;
  return plan.persistent ? std::numeric_limits<int32_t>::max() : kGruRowsOfSteps;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CUDA, m) {
  asrkern::implement<"gru", &asrkern::gru>(m);
  asrkern::implement<"gru_backward", &asrkern::gru_backward>(m);
}

STABLE_TORCH_LIBRARY_IMPL(asrkern, CompositeExplicitAutograd, m) {
  asrkern::implement<"gru_cuda_rows", &asrkern::gru_cuda_rows>(m);
}

#include <torch/csrc/stable/accelerator.h>

#include "csrc/ops/ctc_beam_search.h"
#include "kernels/ctc/cuda/ctc_beam_search.h"

namespace asrkern {
namespace {

void check_fits(const CtcBeamPlan& plan, int32_t device, int64_t beam_width, int64_t vocabulary) {
  int64_t room = 0;
  if (const int error = cuda::ctc_beam_search_shared_bytes(device, &room))
    throw std::runtime_error("asrkern::ctc_beam_search: no answer from the CUDA device, error " +
                             std::to_string(error));
  const int64_t needed = cuda::ctc_beam_search_shared_bytes(plan);
  if (needed > room)
    invalid("beam_width: ", beam_width, " prefixes with ", vocabulary, " tokens take ", needed,
            " bytes of a multiprocessor's shared memory, of which the device has ", room,
            "; expected fewer, or log_probs on the CPU (device=\"cpu\")");
}

CtcResultTensors search_rows(const Tensor& log_probs, const std::optional<Tensor>& lengths,
                             const CtcArguments& arguments) {
  const torch::stable::accelerator::DeviceGuard guard(log_probs.get_device_index());
  CtcBeamSearch search{};
  search.rows = log_probs.size(0);
  search.frames = log_probs.size(1);
  search.model = arguments.model;
  search.lm = arguments.tables;
  search.options = arguments.options;
  search.plan = ctc_beam_plan(search.options.beam_width, log_probs.size(2), search.frames);
  check_fits(search.plan, log_probs.get_device_index(), search.options.beam_width, log_probs.size(2));

  const Tensor values = dense(log_probs);
  const std::optional<Tensor> counts = dense(lengths);
  const CtcResults results(log_probs, arguments.nbest);
  Tensor arena = allocate(log_probs, {search.rows * search.plan.arena_bytes}, ScalarType::Byte);
  search.log_probs = data<float>(values);
  search.lengths = data_or_null<int64_t>(counts);
  search.arena = static_cast<char*>(arena.mutable_data_ptr());
  search.output = results.output;
  search.errors = results.errors;
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(log_probs.get_device_index(), &stream));
  if (const int error = cuda::ctc_beam_search(search, stream))
    throw std::runtime_error("asrkern::ctc_beam_search: the CUDA launch failed with error " + std::to_string(error));
  return results.tensors;
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CUDA, m) {
  asrkern::implement_with_fields<"ctc_beam_search", &asrkern::ctc_beam_search<&asrkern::search_rows>>(m);
}

// Greedy decoding for Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "csrc/decoder/modules.h"
#include "kernels/ctc/ctc_greedy.h"

namespace py = pybind11;

namespace asrkern {
namespace {

using Path = std::pair<std::vector<int64_t>, std::vector<int64_t>>;

std::vector<Path> greedy_decode(const py::array_t<float, py::array::c_style | py::array::forcecast>& log_probs,
                                const std::vector<int64_t>& lengths, int64_t blank) {
  if (log_probs.ndim() != 3)
    throw py::value_error("log_probs: expected 3 dimensions [batch, frames, vocabulary], received " +
                          std::to_string(log_probs.ndim()));
  const int64_t batch = log_probs.shape(0), frames = log_probs.shape(1), vocabulary = log_probs.shape(2);
  if (blank < 0 || blank >= vocabulary)
    throw py::value_error("blank: expected a token between 0 and " + std::to_string(vocabulary - 1) + ", received " +
                          std::to_string(blank));
  if (int64_t(lengths.size()) != batch)
    throw py::value_error("lengths: expected " + std::to_string(batch) + " values, received " +
                          std::to_string(lengths.size()));
  for (int64_t length : lengths)
    if (length < 0 || length > frames)
      throw py::value_error("lengths: expected values between 0 and " + std::to_string(frames) + ", received " +
                            std::to_string(length));
  const float* values = log_probs.data();
  std::vector<Path> paths(batch);
  py::gil_scoped_release release;
  for (int64_t n = 0; n < batch; ++n) {
    auto& [tokens, timesteps] = paths[n];
    tokens.resize(lengths[n]);
    timesteps.resize(lengths[n]);
    const GreedyResult result = ctc_greedy(values + n * frames * vocabulary, lengths[n], vocabulary, vocabulary, blank,
                                           tokens.data(), timesteps.data());
    if (result.nan_frame >= 0)
      throw py::value_error("log_probs: expected numbers, received NaN in row " + std::to_string(n) + " at frame " +
                            std::to_string(result.nan_frame));
    tokens.resize(result.count);
    timesteps.resize(result.count);
  }
  return paths;
}

}  // namespace

void bind_greedy(py::module_& m) {
  m.def("greedy_decode", &greedy_decode, py::arg("log_probs"), py::arg("lengths"), py::arg("blank"));
}

}  // namespace asrkern

// Alignment and scoring of given texts, for Python; asrkern/decoder/align.py is what people use.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "csrc/decoder/modules.h"
#include "kernels/ctc/ctc_align.h"
#include "kernels/ctc/ctc_best_path.h"

namespace py = pybind11;

namespace asrkern {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using LogProbs = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Tokens = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// One utterance: log_probs [frames, vocabulary], tokens [count].
struct Problem {
  Problem(const LogProbs& values, const Tokens& targets, int64_t blank_token)
      : log_probs(values.data()),
        frames(values.shape(0)),
        vocabulary(values.shape(1)),
        tokens(targets.data()),
        count(targets.size()),
        blank(blank_token) {
    if (blank < 0 || blank >= vocabulary)
      throw py::value_error("blank: expected a token between 0 and " + std::to_string(vocabulary - 1) + ", received " +
                            std::to_string(blank));
    for (int64_t i = 0; i < count; ++i)
      if (tokens[i] < 0 || tokens[i] >= vocabulary || tokens[i] == blank)
        throw py::value_error("targets: expected tokens between 0 and " + std::to_string(vocabulary - 1) +
                              " other than blank, " + std::to_string(blank) + ", received " +
                              std::to_string(tokens[i]));
    for (int64_t i = 0; i < frames * vocabulary; ++i)
      if (log_probs[i] != log_probs[i])
        throw py::value_error("log_probs: expected numbers, received NaN at frame " + std::to_string(i / vocabulary));
  }

  const float* log_probs;
  int64_t frames, vocabulary;
  const int64_t* tokens;
  int64_t count, blank;
};

double log_add_exact(double a, double b) {
  const double high = std::max(a, b), low = std::min(a, b);
  return low == -kInfinity ? high : high + std::log1p(std::exp(low - high));
}

double ctc_score(const LogProbs& log_probs, const Tokens& targets, int64_t blank) {
  const Problem problem(log_probs, targets, blank);
  py::gil_scoped_release release;
  if (problem.frames == 0) return problem.count == 0 ? 0 : -kInfinity;
  std::vector<double> scores(ctc_states(problem.count) + 2);
  ctc_walk(problem.log_probs, problem.frames, problem.vocabulary, problem.tokens, problem.count, problem.blank,
           -kInfinity, log_add_exact, scores.data());
  const double* last = scores.data() + scores.size() - 1;
  return problem.count == 0 ? *last : log_add_exact(*last, last[-1]);
}

// The token of each frame, which may be blank. Empty if no alignment is possible.
py::array_t<int64_t> forced_align(const LogProbs& log_probs, const Tokens& targets, int64_t blank,
                                  const std::optional<LogProbs>& log_priors, int64_t block) {
  const Problem problem(log_probs, targets, blank);
  if (log_priors && log_priors->size() != problem.vocabulary)
    throw py::value_error("log_priors: expected " + std::to_string(problem.vocabulary) + " values, received " +
                          std::to_string(log_priors->size()));
  if (block < 0) throw py::value_error("block: expected at least 0, received " + std::to_string(block));
  std::vector<int64_t> path(problem.frames);
  bool found = false;
  {
    py::gil_scoped_release release;
    CtcBestPath best(problem.log_probs, problem.frames, problem.vocabulary, problem.tokens, problem.count, blank,
                     log_priors ? log_priors->data() : nullptr, block);
    found = best.find(path.data());
  }
  return py::array_t<int64_t>(found ? py::ssize_t(path.size()) : 0, path.data());
}

}  // namespace

void bind_align(py::module_& m) {
  m.def("ctc_score", &ctc_score, py::arg("log_probs"), py::arg("targets"), py::arg("blank"));
  m.def("forced_align", &forced_align, py::arg("log_probs"), py::arg("targets"), py::arg("blank"),
        py::arg("log_priors") = py::none(), py::arg("block") = 0);
}

}  // namespace asrkern

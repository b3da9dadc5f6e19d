// Adds each part to the Python module.
#pragma once

#include <pybind11/pybind11.h>

namespace asrkern {

void bind_greedy(pybind11::module_& m);
void bind_tries(pybind11::module_& m);
void bind_ctc_beam(pybind11::module_& m);
void bind_align(pybind11::module_& m);
void bind_hypotheses(pybind11::module_& m);

}  // namespace asrkern

// What every CPU operation needs between torch and a kernel: threads, allocation, checks of values.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cpu/dispatch.h"

namespace asrkern {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Arrives in Python as a ValueError.
template <class... Parts>
[[noreturn]] inline void invalid(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

inline cpu::ThreadPool torch_threads() {
  return {int(torch::stable::get_num_threads()),
          [](int64_t tasks, void (*body)(int64_t, int64_t, void*), void* context) {
            STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, tasks, 1, body, context));
          }};
}

// f(T()) with the C++ type of a float32 or float64 tensor; Python has up-cast everything else.
template <class F>
auto with_dtype(const Tensor& tensor, const char* name, const F& f) {
  if (tensor.scalar_type() == ScalarType::Float) return f(float());
  if (tensor.scalar_type() == ScalarType::Double) return f(double());
  invalid(name, ": expected dtype float32 or float64, received another; call it through asrkern.ops, which up-casts");
}

// Uninitialised, or with ASRKERN_CHECK=1 full of NaN, so that a value that nobody wrote is seen.
inline Tensor new_output(const Tensor& like, std::vector<int64_t> sizes) {
  static const bool check = [] {
    const char* value = std::getenv("ASRKERN_CHECK");
    return value && std::string(value) == "1";
  }();
  Tensor result = torch::stable::new_empty(like, sizes);
  if (check) torch::stable::fill_(result, std::numeric_limits<double>::quiet_NaN());
  return result;
}

// Ask for pages of 2 MB in memory that is still to be written: streaming through small ones misses the TLB at each.
inline void prefer_huge_pages(Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t first = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (first + kPage - 1) / kPage * kPage;
  const uintptr_t end = (first + uintptr_t(tensor.numel()) * tensor.element_size()) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

inline Tensor dense(const Tensor& tensor) { return torch::stable::contiguous(tensor); }

inline std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(dense(*tensor)) : std::nullopt;
}

template <class T>
const T* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const T*>(tensor->const_data_ptr()) : nullptr;
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}

template <class T>
T* mutable_data(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <class T>
std::vector<T*> row_pointers(T* values, int64_t rows, int64_t stride) {
  std::vector<T*> pointers(rows);
  for (int64_t i = 0; i < rows; ++i) pointers[i] = values + i * stride;
  return pointers;
}

// The values of an int64 tensor [rows], each within [0, longest].
inline std::vector<int64_t> read_lengths(const Tensor& lengths, const char* name, int64_t rows, int64_t longest) {
  if (lengths.numel() != rows) invalid(name, ": expected ", rows, " values, one a row, received ", lengths.numel());
  const Tensor values = dense(lengths);
  const int64_t* p = data<int64_t>(values);
  for (int64_t i = 0; i < rows; ++i)
    if (p[i] < 0 || p[i] > longest)
      invalid(name, ": expected values between 0 and the ", longest, " frames of the input, received ", p[i],
              " at row ", i);
  return {p, p + rows};
}

}  // namespace asrkern

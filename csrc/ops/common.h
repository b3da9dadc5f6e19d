// What CPU operations need between torch and a kernel: threads, memory, checks of values.
#pragma once

#include <torch/csrc/stable/ops.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <optional>
#include <vector>

#include "csrc/ops/check.h"
#include "csrc/ops/memory.h"
#include "kernels/common/cpu/dispatch.h"

namespace asrkern {

inline cpu::ThreadPool torch_threads() {
  return {int(torch::stable::get_num_threads()),
          [](int64_t tasks, void (*body)(int64_t, int64_t, void*), void* context) {
            STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, tasks, 1, body, context));
          }};
}

// Calls f(T()) with the C++ type of a float32 or float64 tensor. Python has converted all other dtypes.
template <class F>
auto with_dtype(const Tensor& tensor, const char* name, const F& f) {
  check(name, tensor);
  const ScalarType type = dtype_of(tensor);
  if (type == ScalarType::Float) return f(float());
  if (type == ScalarType::Double) return f(double());
  invalid(name, ": expected dtype float32 or float64, received ", dtype_text(type), "; asrkern.ops up-casts");
}

// Asks for pages of 2 MB in memory that is not written yet: with small pages, streaming misses the TLB at every page.
inline void prefer_huge_pages(Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t first = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (first + kPage - 1) / kPage * kPage;
  const uintptr_t end = (first + uintptr_t(tensor.numel()) * tensor.element_size()) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
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

// A sum of products of two numbers of eight bits is to fit 32 bits.
constexpr int64_t kMostDotFeatures = int64_t(1) << 17;

inline void check_dot_features(const char* name, int64_t features) {
  if (features > kMostDotFeatures)
    invalid(name, ": expected at most ", kMostDotFeatures, " features with int8 activations, received ", features);
}

// The values of an int64 tensor [rows], each within [0, longest].
inline std::vector<int64_t> read_lengths(const Tensor& lengths, const char* name, int64_t rows, int64_t longest) {
  check(name, lengths).dtype(ScalarType::Long).shape({rows});
  const Tensor values = dense(lengths);
  const int64_t* p = data<int64_t>(values);
  for (int64_t i = 0; i < rows; ++i)
    if (p[i] < 0 || p[i] > longest)
      invalid(name, ": expected values between 0 and the ", longest, " frames of the input, received ", p[i],
              " at row ", i);
  return {p, p + rows};
}

}  // namespace asrkern

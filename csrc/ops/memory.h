// Allocation for the operations. Where memory is lacking, the error says which operation wanted how much, for what.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/HeaderOnlyArrayRef.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "csrc/ops/check.h"

namespace asrkern {

// Arrives in Python as a MemoryError.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

using Sizes = torch::headeronly::IntHeaderOnlyArrayRef;

// The bytes of a tensor. ValueError if int64 does not hold the number.
inline int64_t bytes_of(std::span<const int64_t> sizes, int64_t element_size) {
  int64_t bytes = element_size;
  bool fits = true;
  // Sizes of 0 count last: torch, too, wants the product of all others to fit.
  for (const int64_t size : sizes)
    if (size != 0) fits &= !__builtin_mul_overflow(bytes, size, &bytes);
  if (!fits) invalid("a tensor of shape ", shape_text(sizes), " would have more bytes than can be counted");
  for (const int64_t size : sizes) bytes = size == 0 ? 0 : bytes;
  return bytes;
}

// Calls make(), which allocates a tensor of these sizes on the device of `like`.
template <class Make>
Tensor allocate_by(const Tensor& like, std::span<const int64_t> sizes, int64_t element_size, const Make& make) {
  const int64_t bytes = bytes_of(sizes, element_size);
  try {
    return make();
  } catch (const std::runtime_error&) {
    // A device can fail for other reasons than lack of memory.
    if (!like.is_cpu()) throw;
    throw OutOfMemory("no memory for " + std::to_string(bytes) + " bytes, a tensor of shape " + shape_text(sizes));
  }
}

inline int64_t element_size_of(const Tensor& like, std::optional<ScalarType> type) {
  if (!type) return int64_t(like.element_size());
  return int64_t(aoti_torch_dtype_element_size(torch::stable::detail::to<int32_t>(torch::stable::detail::from(*type))));
}

// Memory that is not initialised.
inline Tensor allocate(const Tensor& like, Sizes sizes, std::optional<ScalarType> type = std::nullopt) {
  return allocate_by(like, {sizes.data(), sizes.size()}, element_size_of(like, type),
                     [&] { return torch::stable::new_empty(like, sizes, type); });
}

inline Tensor allocate_zeros(const Tensor& like, Sizes sizes, std::optional<ScalarType> type = std::nullopt) {
  return allocate_by(like, {sizes.data(), sizes.size()}, element_size_of(like, type),
                     [&] { return torch::stable::new_zeros(like, sizes, type); });
}

// For a result. Uninitialised; with ASRKERN_CHECK=1 full of NaN, so that a value that nobody wrote is seen.
inline Tensor new_output(const Tensor& like, Sizes sizes) {
  static const bool check = [] {
    const char* value = std::getenv("ASRKERN_CHECK");
    return value && std::string(value) == "1";
  }();
  Tensor result = allocate(like, sizes);
  if (check) torch::stable::fill_(result, std::numeric_limits<double>::quiet_NaN());
  return result;
}

// The tensor itself if it is contiguous, else a contiguous copy.
inline Tensor dense(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  return allocate_by(tensor, sizes_of(tensor), int64_t(tensor.element_size()),
                     [&] { return torch::stable::contiguous(tensor); });
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(dense(*tensor)) : std::nullopt;
}

// An operation's name as an argument of a template.
template <size_t size>
struct OperationName {
  char text[size];
  constexpr OperationName(const char (&name)[size]) { std::copy_n(name, size, text); }
};

template <OperationName name, auto function>
struct Operation;

// The function as torch calls it. If an allocation in it fails, the error has the operation's name.
template <OperationName name, class Result, class... Args, Result (*function)(Args...)>
struct Operation<name, function> {
  static Result call(Args... args) {
    try {
      return function(std::forward<Args>(args)...);
    } catch (const OutOfMemory& error) {
      throw OutOfMemory(std::string("asrkern::") + name.text + ": " + error.what());
    } catch (const std::bad_alloc&) {
      throw OutOfMemory(std::string("asrkern::") + name.text +
                        ": no memory for what this call takes beside its results");
    }
  }
};

// Registers the operation `name` for the library's device.
template <OperationName name, auto function>
void implement(torch::stable::detail::StableLibrary& library) {
  library.impl(name.text, TORCH_BOX((&Operation<name, function>::call)));
}

}  // namespace asrkern

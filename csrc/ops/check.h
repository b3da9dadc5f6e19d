// Checks of an operation's arguments. They cover all that memory safety depends on, whoever calls the operation.
//
//   check("bias", bias).dtype(input).shape({out_features});
//
// raises a ValueError that names the argument, what was expected and what was received.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>

// torch 2.11 has this only under another name.
#ifndef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace asrkern {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws what Python receives as a ValueError.
template <class... Parts>
[[noreturn, gnu::noinline, gnu::cold]] inline void invalid(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// As an expected size: any size is right.
constexpr int64_t kAny = -1;

// Sizes as Python writes a shape.
inline std::string shape_text(std::span<const int64_t> sizes) {
  std::string text = "(";
  for (size_t i = 0; i < sizes.size(); ++i)
    text += (i ? ", " : "") + (sizes[i] == kAny ? std::string("any") : std::to_string(sizes[i]));
  return text + (sizes.size() == 1 ? ",)" : ")");
}

inline std::span<const int64_t> sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.data(), sizes.size()};
}

inline std::string dtype_text(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    default:
      return "another";
  }
}

// Undefined for dtypes that torch's stable interface has no name for, such as complex ones.
inline ScalarType dtype_of(const Tensor& tensor) {
  try {
    return tensor.scalar_type();
  } catch (const std::runtime_error&) {
    return ScalarType::Undefined;
  }
}

// An argument to check. If it is not there, every check but `given` passes.
class Argument {
 public:
  Argument(const char* name, const Tensor* tensor) : name_(name), tensor_(tensor) {
    // None for an argument that is not optional, or in a list, arrives as an undefined tensor.
    if (tensor && !tensor->defined()) invalid(name, ": expected a tensor, received None");
  }

  // One of these dtypes.
  const Argument& dtype(std::initializer_list<ScalarType> types) const {
    if (!tensor_) return *this;
    const ScalarType received = dtype_of(*tensor_);
    for (const ScalarType type : types)
      if (received == type) return *this;
    std::string expected;
    for (const ScalarType type : types) expected += (expected.empty() ? "" : " or ") + dtype_text(type);
    invalid(name_, ": expected dtype ", expected, ", received ", dtype_text(received));
  }
  const Argument& dtype(ScalarType type) const { return dtype({type}); }
  // The dtype of another tensor.
  const Argument& dtype(const Tensor& like) const { return tensor_ ? dtype(dtype_of(like)) : *this; }

  const Argument& dim(size_t dimensions) const {
    if (!tensor_ || sizes_of(*tensor_).size() == dimensions) return *this;
    invalid(name_, ": expected ", dimensions, dimensions == 1 ? " dimension" : " dimensions", ", received shape ",
            shape_text(sizes_of(*tensor_)));
  }

  const Argument& shape(std::span<const int64_t> expected) const {
    if (!tensor_) return *this;
    const std::span<const int64_t> received = sizes_of(*tensor_);
    bool good = received.size() == expected.size();
    for (size_t i = 0; good && i < received.size(); ++i) good = expected[i] == kAny || received[i] == expected[i];
    if (good) return *this;
    invalid(name_, ": expected shape ", shape_text(expected), ", received ", shape_text(received));
  }
  const Argument& shape(std::initializer_list<int64_t> expected) const {
    return shape(std::span<const int64_t>(expected.begin(), expected.size()));
  }

  const Argument& device(const Tensor& like) const {
    if (!tensor_ || (tensor_->is_cpu() == like.is_cpu() && tensor_->get_device_index() == like.get_device_index()))
      return *this;
    invalid(name_, ": expected a tensor on ", like.is_cpu() ? "the CPU" : "the GPU of the first argument",
            ", received another");
  }

  // The argument is there, or it is not, as another argument requires.
  const Argument& given(bool expected, const char* because) const {
    if (expected == (tensor_ != nullptr)) return *this;
    invalid(name_, ": expected ", expected ? "a tensor" : "None", " ", because, ", received ",
            tensor_ ? "a tensor" : "None");
  }

 private:
  const char* name_;
  const Tensor* tensor_;
};

inline Argument check(const char* name, const Tensor& tensor) { return {name, &tensor}; }
inline Argument check(const char* name, const std::optional<Tensor>& tensor) {
  return {name, tensor ? &*tensor : nullptr};
}

}  // namespace asrkern

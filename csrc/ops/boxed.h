// Operations whose functions take structs: in the schema each field is an argument, in the order of the struct's
// each(f).
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "csrc/ops/memory.h"

namespace asrkern {

template <class T>
concept HasFields = requires(T value) { value.each([](const char*, auto&) {}); };

// How a schema names a type.
template <class T>
constexpr const char* schema_type() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, int64_t>) return "int";
  if constexpr (std::is_same_v<T, double>) return "float";
  if constexpr (std::is_same_v<T, std::optional<double>>) return "float?";
}

// The arguments of a struct as a schema has them: "int blank, int beam_width, …".
template <HasFields T>
std::string schema_of() {
  std::string result;
  T{}.each([&](const char* name, const auto& field) {
    constexpr const char* kType = schema_type<std::decay_t<decltype(field)>>();
    result += (result.empty() ? "" : ", ") + std::string(kType) + " " + name;
  });
  return result;
}

// The next argument, or as many as T has fields.
template <class T>
T take_argument(StableIValue*& stack) {
  if constexpr (HasFields<T>) {
    T fields{};
    fields.each([&](const char*, auto& field) { field = take_argument<std::decay_t<decltype(field)>>(stack); });
    return fields;
  } else {
    return torch::stable::detail::to<T>(*stack++);
  }
}

template <class T>
uint64_t argument_count() {
  uint64_t count = 0;
  if constexpr (HasFields<T>)
    T{}.each([&](const char*, auto&) { ++count; });
  else
    count = 1;
  return count;
}

template <auto call>
struct Boxed;

template <class... Results, class... Args, std::tuple<Results...> (*call)(Args...)>
struct Boxed<call> {
  static void run(StableIValue* stack, uint64_t arguments, uint64_t results) {
    if (arguments != (argument_count<std::decay_t<Args>>() + ...) || results != sizeof...(Results))
      throw std::logic_error("an operation's schema has other arguments than its function");
    StableIValue* next = stack;
    // In braces they are taken in order.
    std::tuple<std::decay_t<Args>...> taken{take_argument<std::decay_t<Args>>(next)...};
    std::apply(
        [&](Results&&... result) {
          StableIValue* to = stack;
          ((*to++ = torch::stable::detail::from(std::move(result))), ...);
        },
        std::apply(call, taken));
  }
};

// As implement(), for a function that takes structs and returns a tuple.
template <OperationName name, auto function>
void implement_with_fields(torch::stable::detail::StableLibrary& library) {
  library.impl(name.text, &Boxed<&Operation<name, function>::call>::run);
}

}  // namespace asrkern

// Errors about texts that may not be UTF-8; they arrive in Python as ValueError.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace asrkern {

struct TextError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The beginning of a text in quotes, up to a NUL, where a message would end.
inline std::string quoted(std::string_view text) {
  constexpr size_t kShown = 60;
  std::string shown(text.substr(0, kShown));
  for (size_t at; (at = shown.find('\0')) != std::string::npos;) shown.replace(at, 1, "\\x00");
  return "'" + shown + (text.size() > kShown ? "…'" : "'");
}

}  // namespace asrkern

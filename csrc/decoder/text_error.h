// Errors about texts that may not be UTF-8; they arrive in Python as ValueError.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace asrkern {

struct TextError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The beginning of a text in quotes.
inline std::string quoted(std::string_view text) {
  constexpr size_t SHOWN = 60;
  return "'" + std::string(text.substr(0, SHOWN)) + (text.size() > SHOWN ? "…'" : "'");
}

}  // namespace asrkern

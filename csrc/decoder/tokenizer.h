// Text to the words of a language model, all in UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace asrkern {

// ASCII white space, and NUL: what KenLM separates words at.
inline bool is_space(char c) {
  const auto code = static_cast<unsigned char>(c);
  return code <= ' ' && (code == ' ' || code == 0 || (code >= '\t' && code <= '\r'));
}

struct Tokenizer {
  // Words are what white space separates; or, for models of characters, every character is a word, and `space` stands
  // for the white space between others.
  bool characters = false;
  std::string space;

  template <class F>
  void operator()(std::string_view line, F&& token) const {
    size_t at = 0;
    bool first = true;
    while (true) {
      while (at < line.size() && is_space(line[at])) ++at;
      if (at == line.size()) return;
      size_t end = at;
      while (end < line.size() && !is_space(line[end])) ++end;
      if (!characters) {
        token(line.substr(at, end - at));
      } else {
        if (!first) token(std::string_view(space));
        while (at < end) {
          size_t next = at + 1;
          while (next < end && (line[next] & 0xc0) == 0x80) ++next;
          token(line.substr(at, next - at));
          at = next;
        }
      }
      first = false;
      at = end;
    }
  }
};

}  // namespace asrkern

// Splits text in UTF-8 into the words of a language model.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace asrkern {

// ASCII white space, and NUL: what KenLM separates words at.
inline bool is_space(char c) {
  const auto code = static_cast<unsigned char>(c);
  return code <= ' ' && (code == ' ' || code == 0 || (code >= '\t' && code <= '\r'));
}

// The first white space of [text, end), or end.
inline const char* find_space(const char* text, const char* end) {
  // Looks at eight bytes at a time: marks the bytes below 0x21, and now and then the byte behind one of them.
  while (end - text >= 8) {
    uint64_t bytes;
    memcpy(&bytes, text, 8);
    const uint64_t low = (bytes - 0x2121212121212121ull) & ~bytes & 0x8080808080808080ull;
    text += low ? std::countr_zero(low) / 8 : 8;
    if (low) {
      if (is_space(*text)) return text;
      ++text;
    }
  }
  while (text < end && !is_space(*text)) ++text;
  return text;
}

struct Tokenizer {
  // Words are separated by white space. In models of characters every character is a word, and `space` stands for the
  // white space between two others.
  bool characters = false;
  std::string space;

  template <class F>
  void operator()(std::string_view line, F&& token) const {
    const char *text = line.data(), *const end = text + line.size();
    bool first = true;
    while (true) {
      while (text < end && is_space(*text)) ++text;
      if (text == end) return;
      const char* const word_end = find_space(text, end);
      if (!characters) {
        token(std::string_view(text, word_end));
      } else {
        if (!first) token(std::string_view(space));
        while (text < word_end) {
          const char* next = text + 1;
          while (next < word_end && (*next & 0xc0) == 0x80) ++next;
          token(std::string_view(text, next));
          text = next;
        }
      }
      first = false;
      text = word_end;
    }
  }
};

}  // namespace asrkern

// MurmurHash64A (Austin Appleby, public domain) with seed 0, by which KenLM's files identify words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace asrkern {

inline uint64_t load_8_bytes(const char* text) {
  uint64_t bytes;
  memcpy(&bytes, text, 8);
  return bytes;
}

// The integer of 1 to 7 bytes, with zeros above them.
inline uint64_t load_bytes(const char* text, size_t bytes) {
  if (bytes >= 4) {
    uint32_t low, high;  // they may overlap
    memcpy(&low, text, 4);
    memcpy(&high, text + bytes - 4, 4);
    return low | uint64_t(high) << 8 * (bytes - 4);
  }
  const auto byte = [text](size_t i) { return uint64_t(uint8_t(text[i])) << 8 * i; };
  return byte(0) | byte(bytes / 2) | byte(bytes - 1);
}

// The hash of [text, text + bytes). `end`: of the memory that may be read, at or behind the end of the text. Where 8
// bytes may be read, the last bytes of a text are hashed without branches.
inline uint64_t murmur_hash(const char* text, size_t bytes, const char* end) {
  constexpr uint64_t kMultiplier = 0xc6a4a7935bd1e995ull;
  uint64_t hash = bytes * kMultiplier;
  for (; bytes >= 8; text += 8, bytes -= 8) {
    uint64_t block = load_8_bytes(text) * kMultiplier;
    block ^= block >> 47;
    hash = (hash ^ block * kMultiplier) * kMultiplier;
  }
  if (bytes) {
    const uint64_t rest = end - text >= 8 ? load_8_bytes(text) & ((1ull << 8 * bytes) - 1) : load_bytes(text, bytes);
    hash = (hash ^ rest) * kMultiplier;
  }
  hash = (hash ^ hash >> 47) * kMultiplier;
  return hash ^ hash >> 47;
}

inline uint64_t murmur_hash(const char* text, size_t bytes) { return murmur_hash(text, bytes, text + bytes); }

}  // namespace asrkern

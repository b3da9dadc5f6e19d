// MurmurHash64A (Austin Appleby, public domain) with seed 0, which KenLM's files know words by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace asrkern {

// The last 1 to 7 bytes, zeros above them. Loads may overlap: cheaper than byte by byte.
inline uint64_t murmur_tail(const char* text, size_t bytes) {
  if (bytes >= 4) {
    uint32_t low, high;
    memcpy(&low, text, 4);
    memcpy(&high, text + bytes - 4, 4);
    return low | uint64_t(high) << 8 * (bytes - 4);
  }
  const auto byte = [text](size_t i) { return uint64_t(uint8_t(text[i])) << 8 * i; };
  return byte(0) | byte(bytes / 2) | byte(bytes - 1);
}

inline uint64_t murmur_hash(const char* text, size_t bytes) {
  constexpr uint64_t M = 0xc6a4a7935bd1e995ull;
  uint64_t hash = bytes * M;
  const auto mix = [](uint64_t block) {
    block *= M;
    block ^= block >> 47;
    return block * M;
  };
  for (; bytes >= 8; text += 8, bytes -= 8) {
    uint64_t block;
    memcpy(&block, text, 8);
    hash = (hash ^ mix(block)) * M;
  }
  if (bytes) hash = (hash ^ murmur_tail(text, bytes)) * M;
  hash = (hash ^ hash >> 47) * M;
  return hash ^ hash >> 47;
}

}  // namespace asrkern

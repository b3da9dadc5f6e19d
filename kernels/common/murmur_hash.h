// MurmurHash64A (Austin Appleby, public domain) with seed 0, which KenLM's files know words by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace asrkern {

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
  if (bytes) {
    uint64_t block = 0;
    memcpy(&block, text, bytes);
    hash = (hash ^ block) * M;
  }
  hash = (hash ^ hash >> 47) * M;
  return hash ^ hash >> 47;
}

}  // namespace asrkern

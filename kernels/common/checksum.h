// A 64-bit checksum of memory at about the speed at which it is read; not a cryptographic one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace asrkern {

// Each word goes into one of eight chains of one-to-one steps, so that a change of any one word changes the result.
// Eight, since a chain waits for its multiplication. `seed` tells pieces of one memory apart.
inline uint64_t checksum(const void* memory, size_t bytes, uint64_t seed = 0) {
  constexpr int kLanes = 8;
  constexpr uint64_t kFactor = 0x9e3779b97f4a7c15ull;
  const auto step = [](uint64_t lane, uint64_t word) {
    lane ^= word;
    return (lane << 29 | lane >> 35) * kFactor;
  };
  const char* from = static_cast<const char*>(memory);
  uint64_t lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = step(seed + i, bytes);
  for (; bytes >= sizeof lanes; from += sizeof lanes, bytes -= sizeof lanes) {
    uint64_t words[kLanes];
    memcpy(words, from, sizeof words);
    for (int i = 0; i < kLanes; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  if (bytes) {
    uint64_t words[kLanes] = {};
    memcpy(words, from, bytes);
    for (int i = 0; i < kLanes; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  uint64_t result = seed;
  for (uint64_t lane : lanes) result = step(result, lane ^ lane >> 32);
  return result ^ result >> 32;
}

}  // namespace asrkern

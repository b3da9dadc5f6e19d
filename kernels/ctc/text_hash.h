// Hashes of texts that are made from the hashes of their parts: a text has one hash, however it is spelled.
#pragma once

#include <cstdint>

#include "kernels/common/host_device.h"

namespace asrkern {

// Of a text of n characters c: value = Σ mixed(c_i) kBase^(n−1−i), power = kBase^n, both modulo 2^64.
struct TextHash {
  uint64_t value;
  uint64_t power;
};

constexpr TextHash kNoText{0, 1};

// The hash of one text followed by another.
ASRKERN_HOST_DEVICE inline TextHash joined(const TextHash& first, const TextHash& second) {
  return {first.value * second.power + second.value, first.power * second.power};
}

ASRKERN_HOST_DEVICE inline TextHash hash_of_character(uint32_t character) {
  constexpr uint64_t kBase = 0x9e3779b97f4a7c15ull;
  uint64_t mixed = (character + 1ull) * 0xc6a4a7935bd1e995ull;
  mixed = (mixed ^ mixed >> 32) * 0xd6e8feb86659fd93ull;
  return {mixed ^ mixed >> 32, kBase};
}

}  // namespace asrkern

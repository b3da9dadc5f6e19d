// A checksum of many bytes, at the speed of memory. It tells damage, not intent.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kernels/common/murmur_hash.h"

namespace asrkern {

// Four chains side by side, so that none waits for its multiplication. Each step can be undone, so that a change within
// eight bytes always changes the result; the rotation carries upper bits down, where multiplications do not.
inline uint64_t checksum(const char* bytes, size_t count) {
  constexpr uint64_t M = 0xc6a4a7935bd1e995ull;
  uint64_t chains[5] = {1, 2, 3, 4, count};
  for (; count >= 32; bytes += 32, count -= 32)
    for (int i = 0; i < 4; ++i) chains[i] = std::rotl(chains[i] ^ load_8_bytes(bytes + 8 * i), 29) * M;
  chains[4] = (chains[4] * M) ^ murmur_hash(bytes, count);
  return murmur_hash(reinterpret_cast<const char*>(chains), sizeof chains);
}

}  // namespace asrkern

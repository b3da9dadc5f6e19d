// The types that values are stored in. Arithmetic is in float.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace asrkern {

struct Bf16 {
  uint16_t bits;
};

ASRKERN_HOST_DEVICE inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

ASRKERN_HOST_DEVICE inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

ASRKERN_HOST_DEVICE inline float to_float(float value) { return value; }
ASRKERN_HOST_DEVICE inline float to_float(Bf16 value) { return float_of(uint32_t(value.bits) << 16); }

// Rounded to nearest, ties to even; NaN stays NaN.
template <class T>
ASRKERN_HOST_DEVICE T from_float(float value);

template <>
ASRKERN_HOST_DEVICE inline float from_float<float>(float value) {
  return value;
}

template <>
ASRKERN_HOST_DEVICE inline Bf16 from_float<Bf16>(float value) {
#ifdef __CUDA_ARCH__
  uint16_t rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return {rounded};
#else
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t(0x7fc0)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
#endif
}

}  // namespace asrkern

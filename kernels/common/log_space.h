// Arithmetic on logarithms of probabilities: cheap, branch-free so that loops over it vectorise, the same on the host
// and on the device.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/common/host_device.h"

namespace asrkern {

// The logarithm of zero. It is finite, so that the difference of two of them is a number. Everything below half of it
// is impossible.
constexpr float kLogZero = -1e30f;

// Bound of the scores of a frame, a word or a phrase; what is larger counts as infinite. Sums over any number of frames
// stay finite and far above kLogZero, so nothing possible becomes impossible, or the other way round.
constexpr float kLargestScore = 1e20f;

ASRKERN_HOST_DEVICE inline bool is_log_zero(float x) { return x < 0.5f * kLogZero; }

// kLogZero for everything impossible, so that what is added later does not make it possible again.
ASRKERN_HOST_DEVICE inline float or_log_zero(float x) { return x > 0.5f * kLogZero ? x : kLogZero; }

// e^x for x ≤ 0, within 2 ulp; 0 or nearly so below −87. Cephes' expf: x = n ln 2 + r, a polynomial in r.
ASRKERN_HOST_DEVICE inline float exp_nonpositive(float x) {
  x = x > -87.0f ? x : -87.0f;
  // Adding 1.5 · 2²³ rounds to an integer, which is then in the low bits.
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  uint32_t bits, exponent;
  memcpy(&bits, &p, sizeof bits);
  memcpy(&exponent, &shifted, sizeof exponent);
  bits += exponent << 23;
  memcpy(&p, &bits, sizeof p);
  return p;
}

// ln(e^a + e^b), within 2e-7 + 1 ulp of the result. The series of 2 artanh(u / (2 + u)) = ln(1 + u), 0 ≤ u ≤ 1.
ASRKERN_HOST_DEVICE inline float log_add(float a, float b) {
  const float high = a > b ? a : b, low = a > b ? b : a;
  const float u = exp_nonpositive(low - high);
  const float s = u / (2.0f + u), q = s * s;
  float p = 1.0f / 13.0f;
  p = p * q + 1.0f / 11.0f;
  p = p * q + 1.0f / 9.0f;
  p = p * q + 1.0f / 7.0f;
  p = p * q + 1.0f / 5.0f;
  p = p * q + 1.0f / 3.0f;
  return high + 2.0f * (s + s * q * p);
}

}  // namespace asrkern

// Products of int8 weights with activations of eight bits: sums of integers.
//
// A row x is rounded to q = x · 127 / max|x|, to the nearest integer and of two to the even one; its product with a row
// w of int8 weights is Σ q·w · (max|x| / 127) · (scale of w). The sum is exact, so it is the same in any order: a row's
// result depends neither on the rows computed with it nor on the instruction set.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/common/cpu/vec.h"

namespace asrkern::cpu {

// An int8 weight that meets activations of eight bits. One that meets floats is an int8_t.
struct Int8Dot {
  int8_t value;
};

namespace {

// How values of T meet weights stored as W. A row of activations is an array of operands, each of kDepth features;
// packed weights are groups of as many for each lane of a vector. A block of weights begins with kHead weights a lane.
template <class T, class W>
struct Product {
  using Operand = T;
  using Sum = Vec<T>;
  static constexpr bool kRounds = false;  // operands are not the values themselves
  static constexpr int kDepth = 1, kHead = 0;

  static Sum start(const W*) { return Sum::set1(0); }
  static Vec<T> broadcast(Operand x) { return Vec<T>::set1(x); }
  static Vec<T> load(const W* p) { return load_weights<T>(p); }
  static Sum add(Vec<T> x, Vec<T> w, Sum sum) { return fma(x, w, sum); }
  static Vec<T> value(Sum sum) { return sum; }
};

// Four activations as bytes that are 128 more than their value, for VNNI's unsigned operand; or two of 16 bits.
#if defined(__AVX512VNNI__)
using Activation = uint8_t;
constexpr int kActivationOffset = 128;
#else
using Activation = int16_t;
constexpr int kActivationOffset = 0;
#endif

template <class T>
struct Product<T, Int8Dot> {
  using Operand = uint32_t;
  static constexpr bool kRounds = true;
  // The head is a 32-bit integer a lane: what the products of the activations' offsets sum to, with the other sign.
  static constexpr int kDepth = sizeof(Operand) / sizeof(Activation), kHead = sizeof(int32_t);
  static constexpr Operand kZero = kActivationOffset * 0x01010101u;  // an operand whose activations are 0

#if defined(__AVX512F__)
  using Sum = __m512i;
  static Sum start(const Int8Dot* p) { return _mm512_loadu_si512(p); }
  static __m512i broadcast(Operand x) { return _mm512_set1_epi32(int(x)); }
  static __m512i load_operands(const Operand* p) { return _mm512_loadu_si512(p); }
  static int32_t total(Sum sum) { return _mm512_reduce_add_epi32(sum); }
  static Vec<T> value(Sum sum) { return {_mm512_cvtepi32_ps(sum)}; }
  static Sum negative(Sum sum) { return _mm512_sub_epi32(_mm512_setzero_si512(), sum); }
  static Sum zero() { return _mm512_setzero_si512(); }
  static void store(Sum sum, Int8Dot* p) { _mm512_storeu_si512(p, sum); }
#if defined(__AVX512VNNI__)
  static __m512i load(const Int8Dot* p) { return _mm512_loadu_si512(p); }
  static Sum add(__m512i x, __m512i w, Sum sum) {
    // GCC 12 copies the sums of the intrinsic, and spills the copies.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
#else
  static __m512i load(const Int8Dot* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Sum add(__m512i x, __m512i w, Sum sum) {
    const __m512i products = _mm512_madd_epi16(x, w);
    asm("vpaddd %1, %0, %0" : "+v"(sum) : "v"(products));
    return sum;
  }
#endif
#elif defined(__AVX2__)
  using Sum = __m256i;
  static Sum start(const Int8Dot* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static __m256i broadcast(Operand x) { return _mm256_set1_epi32(int(x)); }
  static __m256i load_operands(const Operand* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static int32_t total(Sum sum) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
  }
  static Vec<T> value(Sum sum) { return {_mm256_cvtepi32_ps(sum)}; }
  static Sum negative(Sum sum) { return _mm256_sub_epi32(_mm256_setzero_si256(), sum); }
  static Sum zero() { return _mm256_setzero_si256(); }
  static void store(Sum sum, Int8Dot* p) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), sum); }
  static __m256i load(const Int8Dot* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Sum add(__m256i x, __m256i w, Sum sum) {
    const __m256i products = _mm256_madd_epi16(x, w);
    asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
  }
#else
  static constexpr int kWidth = Vec<T>::kWidth;
  struct Sum {
    int32_t lane[kWidth];
  };
  struct Weights {
    int16_t lane[kWidth][kDepth];
  };
  struct Activations {
    Activation lane[kWidth][kDepth];
  };
  static Sum start(const Int8Dot* p) {
    Sum sum;
    std::memcpy(&sum, p, sizeof(sum));
    return sum;
  }
  static Activations broadcast(Operand x) {
    Activations activations;
    for (int i = 0; i < kWidth; ++i) std::memcpy(activations.lane[i], &x, sizeof(x));
    return activations;
  }
  static Activations load_operands(const Operand* p) {
    Activations activations;
    std::memcpy(&activations, p, sizeof(activations));
    return activations;
  }
  static int32_t total(const Sum& sum) {
    int32_t all = 0;
    for (const int32_t lane : sum.lane) all += lane;
    return all;
  }
  static Weights load(const Int8Dot* p) {
    Weights weights;
    for (int i = 0; i < kWidth; ++i)
      for (int j = 0; j < kDepth; ++j) weights.lane[i][j] = p[i * kDepth + j].value;
    return weights;
  }
  static Sum add(const Activations& x, const Weights& w, Sum sum) {
    for (int i = 0; i < kWidth; ++i)
      for (int j = 0; j < kDepth; ++j) sum.lane[i] += int32_t(x.lane[i][j]) * w.lane[i][j];
    return sum;
  }
  static Vec<T> value(const Sum& sum) {
    return Vec<T>::map([&](int i) { return T(sum.lane[i]); });
  }
  static Sum negative(Sum sum) {
    for (int32_t& lane : sum.lane) lane = -lane;
    return sum;
  }
  static Sum zero() { return {}; }
  static void store(const Sum& sum, Int8Dot* p) { std::memcpy(p, &sum, sizeof(sum)); }
#endif
};

// Operands of a row of `count` features.
template <class T, class W>
constexpr int64_t operand_count(int64_t count) {
  constexpr int kDepth = Product<T, W>::kDepth;
  return (count + kDepth - 1) / kDepth;
}

// The largest magnitude of a row; infinite where a value is infinite or NaN.
template <class T>
T largest_magnitude(const T* x, int64_t count) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  T largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const T magnitude = std::abs(x[i]);
    largest = magnitude < kInfinity ? (magnitude > largest ? magnitude : largest) : kInfinity;
    if (largest == kInfinity) break;
  }
  return largest;
}

// The row's activations from `begin` on; `factor` is 127 / max|x|.
template <class T>
void round_each(const T* x, int64_t begin, int64_t count, T factor, void* to) {
  for (int64_t i = begin; i < count; ++i) {
    const Activation q = Activation(int(std::nearbyint(x[i] * factor)) + kActivationOffset);
    std::memcpy(static_cast<char*>(to) + i * sizeof(q), &q, sizeof(q));  // they are read as operands
  }
}
template <class T>
void round_values(const T* x, int64_t count, T factor, void* to) {
  round_each(x, 0, count, factor, to);
}

#if defined(__AVX512F__)
template <>
inline float largest_magnitude(const float* x, int64_t count) {
  // As integers the magnitudes have the same order, with NaN above infinity.
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16)
    largest = _mm512_max_epi32(
        largest, _mm512_castps_si512(abs(Vec<float>::load(x + i, int(count - i < 16 ? count - i : 16))).v));
  const int bits = _mm512_reduce_max_epi32(largest);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return std::isnan(value) ? std::numeric_limits<float>::infinity() : value;
}
template <>
inline void round_values(const float* x, int64_t count, float factor, void* to) {
  Activation* const out = static_cast<Activation*>(to);
  for (int64_t i = 0; i < count; i += 16) {
    const int left = int(count - i < 16 ? count - i : 16);
    const __mmask16 mask = Vec<float>::first(left);
    const __m512i q = _mm512_cvt_roundps_epi32(_mm512_mul_ps(Vec<float>::load(x + i, left).v, _mm512_set1_ps(factor)),
                                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#if defined(__AVX512VNNI__)
    _mm_mask_storeu_epi8(out + i, mask,
                         _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(kActivationOffset))));
#else
    _mm256_mask_storeu_epi16(out + i, mask, _mm512_cvtepi32_epi16(q));
#endif
  }
}
#elif defined(__AVX2__)
template <>
inline float largest_magnitude(const float* x, int64_t count) {
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 8)
    largest = _mm256_max_epi32(largest,
                               _mm256_castps_si256(abs(Vec<float>::load(x + i, int(count - i < 8 ? count - i : 8))).v));
  int bits[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(bits), largest);
  for (int i = 1; i < 8; ++i) bits[0] = bits[i] > bits[0] ? bits[i] : bits[0];
  float value;
  std::memcpy(&value, &bits[0], sizeof(value));
  return std::isnan(value) ? std::numeric_limits<float>::infinity() : value;
}
template <>
inline void round_values(const float* x, int64_t count, float factor, void* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i q = _mm256_cvtps_epi32(round_to_int(Vec<float>::load(x + i) * Vec<float>::set1(factor)).v);
    const __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<Activation*>(to) + i), _mm_packs_epi32(low, high));
  }
  round_each(x, i, count, factor, to);
}
#endif

// Rounds a row of `count` values to operand_count operands. Returns what they are to be multiplied by: NaN for a row
// that is not finite, 0 for one whose values are all below 2^-100.
template <class T>
T round_row(const T* x, int64_t count, uint32_t* operands) {
  using P = Product<T, Int8Dot>;
  const int64_t groups = operand_count<T, Int8Dot>(count);
  const T largest = largest_magnitude(x, count);
  const bool finite = largest < std::numeric_limits<T>::infinity();
  if (!finite || largest < T(0x1p-100)) {
    for (int64_t k = 0; k < groups; ++k) operands[k] = P::kZero;
    return finite ? T(0) : std::numeric_limits<T>::quiet_NaN();
  }
  operands[groups - 1] = P::kZero;  // features that complete the last group
  round_values<T>(x, count, T(127) / largest, operands);
  return largest / T(127);
}

}  // namespace
}  // namespace asrkern::cpu

// One vector type for each instruction set (ISA). A file compiled with AVX-512 or AVX2 and FMA gets intrinsics for
// float. All other combinations get an array, which the compiler may vectorise with what the baseline has.
//
// Everything lives in an unnamed namespace: the same templates are compiled once per ISA, and a shared name would let
// the linker keep, say, the AVX-512 copy for all of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace asrkern::cpu {

// The upper half of a float's bits: what bfloat16 weights are stored as.
struct Bf16 {
  uint16_t bits;

  operator float() const {
    const uint32_t wide = uint32_t(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, sizeof(value));
    return value;
  }
};

namespace {

template <class T>
struct Vec {
  static constexpr int kWidth = 16 / sizeof(T);
  T lane[kWidth];

  template <class F>
  static Vec map(F f) {
    Vec result;
    for (int i = 0; i < kWidth; ++i) result.lane[i] = f(i);
    return result;
  }
  static Vec set1(T x) {
    return map([=](int) { return x; });
  }
  static Vec load(const T* p) {
    return map([=](int i) { return p[i]; });
  }
  static Vec load(const T* p, int count) {
    return map([=](int i) { return i < count ? p[i] : T(0); });
  }
  void store(T* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = lane[i];
  }
  void store(T* p, int count) const {
    for (int i = 0; i < kWidth && i < count; ++i) p[i] = lane[i];
  }
  friend Vec operator+(Vec a, Vec b) {
    return map([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  friend Vec operator-(Vec a, Vec b) {
    return map([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  friend Vec operator*(Vec a, Vec b) {
    return map([&](int i) { return a.lane[i] * b.lane[i]; });
  }
};

// A vector of weights stored as W, converted to T.
template <class T, class W>
Vec<T> load_weights(const W* p) {
  return Vec<T>::map([=](int i) { return T(p[i]); });
}
// Rounds twice here, once in the FMA builds: results are bit-stable within an ISA, not across ISAs.
template <class T>
Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return a * b + c;
}
// c − a·b.
template <class T>
Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return c - a * b;
}
// As torch's clamp, a NaN x stays a NaN.
template <class T>
Vec<T> clamp(Vec<T> x, T lo, T hi) {
  return Vec<T>::map([&](int i) { return x.lane[i] < lo ? lo : (x.lane[i] > hi ? hi : x.lane[i]); });
}
// The greater of each two; NaN where one is NaN.
template <class T>
Vec<T> maximum(Vec<T> a, Vec<T> b) {
  return Vec<T>::map([&](int i) { return a.lane[i] > b.lane[i] || a.lane[i] != a.lane[i] ? a.lane[i] : b.lane[i]; });
}
// `value` where lo < x < hi, else 0: the gradient of clamp.
template <class T>
Vec<T> inside(Vec<T> value, Vec<T> x, T lo, T hi) {
  return Vec<T>::map([&](int i) { return x.lane[i] > lo && x.lane[i] < hi ? value.lane[i] : T(0); });
}
template <class T>
Vec<T> exp(Vec<T> x) {
  return Vec<T>::map([&](int i) { return std::exp(x.lane[i]); });
}
template <class T>
Vec<T> sigmoid(Vec<T> x) {
  return Vec<T>::map([&](int i) { return T(1) / (T(1) + std::exp(-x.lane[i])); });
}
template <class T>
Vec<T> tanh(Vec<T> x) {
  return Vec<T>::map([&](int i) { return std::tanh(x.lane[i]); });
}
template <class T>
T sum(Vec<T> x) {
  T total = 0;
  for (int i = 0; i < Vec<T>::kWidth; ++i) total += x.lane[i];
  return total;
}

#if defined(__AVX512F__)

template <>
struct Vec<float> {
  static constexpr int kWidth = 16;
  __m512 v;

  static __mmask16 first(int count) { return __mmask16((1u << count) - 1); }
  static Vec set1(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const float* p, int count) {
    return count >= kWidth ? load(p) : Vec{_mm512_maskz_loadu_ps(first(count), p)};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(float* p, int count) const {
    if (count >= kWidth)
      store(p);
    else
      _mm512_mask_storeu_ps(p, first(count), v);
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
};
template <>
inline Vec<float> load_weights<float>(const float* p) {
  return Vec<float>::load(p);
}
template <>
inline Vec<float> load_weights<float>(const Bf16* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
template <>
inline Vec<float> load_weights<float>(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
template <>
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
template <>
inline Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
template <>
inline Vec<float> clamp(Vec<float> x, float lo, float hi) {
  return {_mm512_min_ps(_mm512_set1_ps(hi), _mm512_max_ps(_mm512_set1_ps(lo), x.v))};
}
template <>
inline Vec<float> maximum(Vec<float> a, Vec<float> b) {
  // The instruction takes b where one is NaN.
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), _mm512_max_ps(a.v, b.v), a.v)};
}
template <>
inline Vec<float> inside(Vec<float> value, Vec<float> x, float lo, float hi) {
  const __mmask16 mask =
      _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(lo), _CMP_GT_OQ) & _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(hi), _CMP_LT_OQ);
  return {_mm512_maskz_mov_ps(mask, value.v)};
}
template <>
inline float sum(Vec<float> x) {
  return _mm512_reduce_add_ps(x.v);
}
inline Vec<float> round_to_int(Vec<float> x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec<float> times_power_of_two(Vec<float> x, Vec<float> power) { return {_mm512_scalef_ps(x.v, power.v)}; }
inline Vec<float> abs(Vec<float> x) { return {_mm512_abs_ps(x.v)}; }
inline Vec<float> with_sign_of(Vec<float> x, Vec<float> sign) {
  const __m512i bit = _mm512_set1_epi32(int(0x80000000u));
  return {
      _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bit, _mm512_castps_si512(sign.v), _mm512_castps_si512(x.v), 0xCA))};
}
// a < b ? x : y
inline Vec<float> select_less(Vec<float> a, Vec<float> b, Vec<float> x, Vec<float> y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}

#elif defined(__AVX2__)

template <>
struct Vec<float> {
  static constexpr int kWidth = 8;
  __m256 v;

  static __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Vec set1(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  // AVX2's masked moves are slow, stores above all: only where lanes are missing.
  static Vec load(const float* p, int count) {
    return count >= kWidth ? load(p) : Vec{_mm256_maskload_ps(p, first(count))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(float* p, int count) const {
    if (count >= kWidth)
      store(p);
    else
      _mm256_maskstore_ps(p, first(count), v);
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
};
template <>
inline Vec<float> load_weights<float>(const float* p) {
  return Vec<float>::load(p);
}
template <>
inline Vec<float> load_weights<float>(const Bf16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
template <>
inline Vec<float> load_weights<float>(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
template <>
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
template <>
inline Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
}
template <>
inline Vec<float> clamp(Vec<float> x, float lo, float hi) {
  return {_mm256_min_ps(_mm256_set1_ps(hi), _mm256_max_ps(_mm256_set1_ps(lo), x.v))};
}
template <>
inline Vec<float> maximum(Vec<float> a, Vec<float> b) {
  // The instruction takes b where one is NaN.
  return {_mm256_blendv_ps(_mm256_max_ps(a.v, b.v), a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
}
template <>
inline Vec<float> inside(Vec<float> value, Vec<float> x, float lo, float hi) {
  const __m256 mask = _mm256_and_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(lo), _CMP_GT_OQ),
                                    _mm256_cmp_ps(x.v, _mm256_set1_ps(hi), _CMP_LT_OQ));
  return {_mm256_and_ps(mask, value.v)};
}
template <>
inline float sum(Vec<float> x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline Vec<float> round_to_int(Vec<float> x) {
  return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// power is an integer; the clamp in exp keeps it within the normal exponents.
inline Vec<float> times_power_of_two(Vec<float> x, Vec<float> power) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(power.v), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.v), exponent))};
}
inline Vec<float> abs(Vec<float> x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
inline Vec<float> with_sign_of(Vec<float> x, Vec<float> sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, x.v), _mm256_and_ps(bit, sign.v))};
}
inline Vec<float> select_less(Vec<float> a, Vec<float> b, Vec<float> x, Vec<float> y) {
  return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}

#endif

#if defined(__AVX512F__) || defined(__AVX2__)

// e^x for finite x: Cephes' expf (range reduction by ln 2 in two parts, degree-5 polynomial), within 2 ulp over
// [-87, 88] and saturating there. A NaN stays a NaN.
template <>
inline Vec<float> exp(Vec<float> x) {
  using V = Vec<float>;
  x = clamp(x, -87.0f, 88.0f);
  const V power = round_to_int(x * V::set1(1.44269504088896341f));
  V r = fma(power, V::set1(-0.693359375f), x);
  r = fma(power, V::set1(2.12194440e-4f), r);
  V p = V::set1(1.9875691500e-4f);
  p = fma(p, r, V::set1(1.3981999507e-3f));
  p = fma(p, r, V::set1(8.3334519073e-3f));
  p = fma(p, r, V::set1(4.1665795894e-2f));
  p = fma(p, r, V::set1(1.6666665459e-1f));
  p = fma(p, r, V::set1(5.0000001201e-1f));
  p = fma(p, r * r, r + V::set1(1.0f));
  return times_power_of_two(p, power);
}
template <>
inline Vec<float> sigmoid(Vec<float> x) {
  const Vec<float> one = Vec<float>::set1(1.0f);
  return one / (one + exp(Vec<float>::set1(0.0f) - x));
}
// Cephes' tanhf: an odd polynomial near 0, where 1 − 2/(e^2x + 1) would lose its digits.
template <>
inline Vec<float> tanh(Vec<float> x) {
  using V = Vec<float>;
  const V magnitude = abs(x), one = V::set1(1.0f), two = V::set1(2.0f);
  const V far = one - two / (exp(two * magnitude) + one);
  const V s = x * x;
  V p = V::set1(-5.70498872745e-3f);
  p = fma(p, s, V::set1(2.06390887954e-2f));
  p = fma(p, s, V::set1(-5.37397155531e-2f));
  p = fma(p, s, V::set1(1.33314422036e-1f));
  p = fma(p, s, V::set1(-3.33332819422e-1f));
  const V near = fma(p * s, x, x);
  return select_less(magnitude, V::set1(0.625f), near, with_sign_of(far, x));
}

#endif

}  // namespace
}  // namespace asrkern::cpu

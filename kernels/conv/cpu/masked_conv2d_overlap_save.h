// masked_conv2d through Fourier space along time, for kernels with many taps: overlap-save (Stockham 1966).
//
// A tile of 32 input frames gives 33 − taps output frames. With x̂ the 32-point transform of a tile and ŵ that of a
// kernel row, correlation is a product per frequency, so the convolution becomes, for each of them, a matrix product
// over (in_channels, kernel_bins): 11 taps cost 62 multiplications per 22 outputs in place of 242. A stride of s in
// time is s phases, each with every s-th frame and every s-th tap.
//
// Tiles start at multiples of 33 − taps from frame 0, and each sum is one chain of fma over ascending
// (c_in, phase, k_f), so a row's result does not depend on its batch, its padding or the number of threads.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
namespace {

template <class T>
struct OverlapSave {
  static constexpr int kPoints = 32;
  // The 17 frequencies of a real signal as 16 pairs: (re 0, re 16), then (re, im) of 1 … 15.
  static constexpr int kPairs = kPoints / 2;
#if defined(__AVX512F__)
  static constexpr int kVecs = 2;
#else
  static constexpr int kVecs = 1;
#endif
  static constexpr int kTiles = 6;  // at most in one product: kTiles · 2 · kVecs accumulators
  static constexpr int kSegment =
      24;  // tiles whose spectra are held at once: 8 MB for DeepSpeech2's second convolution
  static_assert(kSegment % kTiles == 0 && kPoints % LinearTile<T>::kColumns == 0);
  static constexpr int kUnit = kVecs * Vec<T>::kWidth;
};

// What follows from a MaskedConv2d.
template <class T>
struct OverlapSaveShape {
  int64_t phases, taps, frames_per_tile;  // taps of each phase, the last ones padded with 0
  int64_t depth;                          // in_channels · phases
  int64_t units;                          // groups of kUnit output channels
  int64_t columns;                        // output channels rounded up to whole panels of linear.h

  explicit OverlapSaveShape(const MaskedConv2d<T>& a)
      : phases(a.stride_frames),
        taps(ceil_div(a.kernel_frames, a.stride_frames)),
        frames_per_tile(OverlapSave<T>::kPoints + 1 - taps),
        depth(a.in_channels * phases),
        units(ceil_div(a.out_channels, OverlapSave<T>::kUnit)),
        columns(ceil_div(a.out_channels, LinearTile<T>::kColumns) * LinearTile<T>::kColumns) {}

  int64_t tiles(int64_t frames) const { return ceil_div(frames, frames_per_tile); }
  // The frames of each phase that the last tile of the longest row reads.
  int64_t padded_frames(const MaskedConv2d<T>& a) const {
    return (tiles(a.out_frames) - 1) * frames_per_tile + OverlapSave<T>::kPoints;
  }
  // [in_channels · in_bins][phases][padded_frames]
  int64_t padded_size(const MaskedConv2d<T>& a) const { return depth * a.in_bins * padded_frames(a); }
  // [kPairs][depth][in_bins][kSegment][2]
  int64_t spectra_size(const MaskedConv2d<T>& a) const {
    return OverlapSave<T>::kPairs * depth * a.in_bins * OverlapSave<T>::kSegment * 2;
  }
  // One worker's output spectra, [kSegment][columns / kColumns][kPoints][kColumns]
  int64_t products_size() const { return OverlapSave<T>::kSegment * OverlapSave<T>::kPoints * columns; }
};

// [kPairs][units][depth · kernel_bins][2][kUnit]
template <class T>
int64_t overlap_save_packed_size(const MaskedConv2d<T>& a) {
  const OverlapSaveShape<T> s(a);
  return OverlapSave<T>::kPairs * s.units * s.depth * a.kernel_bins * 2 * OverlapSave<T>::kUnit;
}

template <class T>
int64_t overlap_save_scratch_size(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  const OverlapSaveShape<T> s(a);
  return s.padded_size(a) + s.spectra_size(a) + pool.threads * s.products_size();
}

// cos and sin of 2π i/32.
template <class T>
struct Circle {
  T cosine[OverlapSave<T>::kPoints], sine[OverlapSave<T>::kPoints];
  Circle() {
    for (int i = 0; i < OverlapSave<T>::kPoints; ++i) {
      const double angle = 2 * 3.14159265358979323846 * i / OverlapSave<T>::kPoints;
      cosine[i] = T(__builtin_cos(angle));
      sine[i] = T(__builtin_sin(angle));
    }
  }
};

// The two values of a pair for a unit impulse at `frame`: the rows of the forward transform.
template <class T>
inline void impulse(const Circle<T>& circle, int pair, int frame, T& first, T& second) {
  const int points = OverlapSave<T>::kPoints;
  first = pair == 0 ? T(1) : circle.cosine[pair * frame % points];
  second = pair == 0 ? circle.cosine[points / 2 * frame % points] : T(0) - circle.sine[pair * frame % points];
}

// weight: [out_channels, in_channels, kernel_bins, kernel_frames] → conjugate spectra, 0 beyond out_channels.
template <class T>
void overlap_save_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  using O = OverlapSave<T>;
  using V = Vec<T>;
  const OverlapSaveShape<T> s(a);
  const Circle<T> circle;
  const int64_t rows = s.depth * a.kernel_bins;
  parallel_for(pool, s.units * rows, [&](int64_t task) {
    const int64_t unit = task / rows, row = task % rows, first = unit * O::kUnit;
    const int64_t channel = row / (s.phases * a.kernel_bins), phase = row / a.kernel_bins % s.phases,
                  bin = row % a.kernel_bins;
    T taps[O::kPoints][O::kUnit];
    for (int64_t j = 0; j < s.taps; ++j)
      for (int i = 0; i < O::kUnit; ++i) {
        const int64_t frame = phase + j * s.phases;
        const bool inside = frame < a.kernel_frames && first + i < a.out_channels;
        taps[j][i] =
            inside ? weight[(((first + i) * a.in_channels + channel) * a.kernel_bins + bin) * a.kernel_frames + frame]
                   : T(0);
      }
    for (int pair = 0; pair < O::kPairs; ++pair)
      for (int v = 0; v < O::kVecs; ++v) {
        V re = V::set1(0), im = V::set1(0);
        for (int64_t j = 0; j < s.taps; ++j) {
          T c, d;
          impulse(circle, pair, int(j), c, d);
          const V tap = V::load(taps[j] + v * V::kWidth);
          re = fma(tap, V::set1(c), re);
          // Conjugated: a correlation, not a convolution.
          im = fma(tap, V::set1(pair == 0 ? d : T(0) - d), im);
        }
        T* out = packed + ((pair * s.units + unit) * rows + row) * 2 * O::kUnit + v * V::kWidth;
        re.store(out);
        im.store(out + O::kUnit);
      }
  });
}

// Σ over (depth, kernel bins) of x̂ · ŵ for `tiles` ≤ kMost tiles of one output bin, one unit of channels, one pair.
// x: [depth][in_bins][kSegment][2] from the first input bin and tile; w: [depth · kernel_bins][2][kUnit];
// y: the pair's two rows within each tile's products.
template <class T, bool kReal, int kMost = OverlapSave<T>::kTiles>
void overlap_save_product(const MaskedConv2d<T>& a, const OverlapSaveShape<T>& s, const T* x, const T* w,
                          int64_t k_begin, int64_t k_end, T* const* y, int64_t tiles) {
  using O = OverlapSave<T>;
  using V = Vec<T>;
  if constexpr (kMost > 1)
    if (tiles < kMost) return overlap_save_product<T, kReal, kMost - 1>(a, s, x, w, k_begin, k_end, y, tiles);
  V re[kMost][O::kVecs], im[kMost][O::kVecs];
  for (int m = 0; m < kMost; ++m)
    for (int v = 0; v < O::kVecs; ++v) re[m][v] = im[m][v] = V::set1(0);
  for (int64_t c = 0; c < s.depth; ++c)
    for (int64_t k = k_begin; k < k_end; ++k) {
      const T* value = x + (c * a.in_bins + k) * O::kSegment * 2;
      const T* weight = w + (c * a.kernel_bins + k) * 2 * O::kUnit;
      V w_re[O::kVecs], w_im[O::kVecs];
      for (int v = 0; v < O::kVecs; ++v) {
        w_re[v] = V::load(weight + v * V::kWidth);
        w_im[v] = V::load(weight + O::kUnit + v * V::kWidth);
      }
      for (int m = 0; m < kMost; ++m) {
        const V x_re = V::set1(value[2 * m]), x_im = V::set1(value[2 * m + 1]);
        for (int v = 0; v < O::kVecs; ++v) {
          re[m][v] = fma(x_re, w_re[v], re[m][v]);
          if constexpr (kReal) {
            im[m][v] = fma(x_im, w_im[v], im[m][v]);
          } else {
            im[m][v] = fma(x_re, w_im[v], im[m][v]);
            re[m][v] = fnma(x_im, w_im[v], re[m][v]);
            im[m][v] = fma(x_im, w_re[v], im[m][v]);
          }
        }
      }
    }
  for (int m = 0; m < kMost; ++m)
    for (int v = 0; v < O::kVecs; ++v) {
      re[m][v].store(y[m] + v * V::kWidth);
      im[m][v].store(y[m] + LinearTile<T>::kColumns + v * V::kWidth);
    }
}

// The spectra of `tiles` tiles of one row, all channels and bins.
template <class T>
void overlap_save_spectra(const ThreadPool& pool, const MaskedConv2d<T>& a, const OverlapSaveShape<T>& s,
                          const T* transform, const T* padded, int64_t first_tile, int64_t tiles, T* spectra) {
  using O = OverlapSave<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t padded_frames = s.padded_frames(a);
  parallel_for(pool, a.in_channels * a.in_bins * s.phases, [&](int64_t task) {
    const int64_t phase = task % s.phases, bin = task / s.phases % a.in_bins, channel = task / s.phases / a.in_bins;
    T values[O::kSegment][O::kPoints];
    const T* x[O::kSegment];
    T* y[O::kSegment];
    for (int64_t m = 0; m < tiles; ++m) x[m] = padded + task * padded_frames + (first_tile + m) * s.frames_per_tile;
    for (int column = 0; column < O::kPoints; column += kColumns) {
      for (int64_t m = 0; m < tiles; ++m) y[m] = values[m] + column;
      linear_panel<T>(x, tiles, transform + column * O::kPoints, O::kPoints, nullptr, nullptr, false, kColumns, y);
    }
    for (int pair = 0; pair < O::kPairs; ++pair) {
      T* out = spectra + ((pair * s.depth + channel * s.phases + phase) * a.in_bins + bin) * O::kSegment * 2;
      for (int64_t m = 0; m < tiles; ++m) {
        out[2 * m] = values[m][2 * pair];
        out[2 * m + 1] = values[m][2 * pair + 1];
      }
    }
  });
}

// One output bin of a segment: products of all frequencies, then back to frames.
template <class T>
void overlap_save_bin(const MaskedConv2d<T>& a, const OverlapSaveShape<T>& s, const T* inverse, const T* spectra,
                      int64_t row, int64_t bin, int64_t first_tile, int64_t tiles, T* products) {
  using O = OverlapSave<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  const int64_t tile_size = O::kPoints * s.columns, weight_size = s.depth * a.kernel_bins * 2 * O::kUnit;
  int64_t first_bin, k_begin, k_end;
  masked_conv2d_bins(a, bin, first_bin, k_begin, k_end);
  // A frequency's weights stay in the cache while all tiles of the segment pass by them.
  for (int pair = 0; pair < O::kPairs; ++pair)
    for (int64_t tile = 0; tile < tiles; tile += O::kTiles) {
      const int64_t count = tiles - tile < O::kTiles ? tiles - tile : O::kTiles;
      const T* x = spectra + (pair * s.depth * a.in_bins + first_bin) * O::kSegment * 2 + tile * 2;
      for (int64_t unit = 0; unit < s.units; ++unit) {
        const T* w = a.weight + (pair * s.units + unit) * weight_size;
        const int64_t channel = unit * O::kUnit;
        T* y[O::kTiles];
        for (int64_t m = 0; m < count; ++m)
          y[m] = products + (tile + m) * tile_size + (channel / kColumns * O::kPoints + 2 * pair) * kColumns +
                 channel % kColumns;
        if (pair == 0)
          overlap_save_product<T, true>(a, s, x, w, k_begin, k_end, y, count);
        else
          overlap_save_product<T, false>(a, s, x, w, k_begin, k_end, y, count);
      }
    }
  const T* x[O::kPoints];
  T values[O::kPoints][kColumns];
  T* y[O::kPoints];
  for (int64_t t = 0; t < s.frames_per_tile; ++t) {
    x[t] = inverse + t * O::kPoints;
    y[t] = values[t];
  }
  for (int64_t m = 0; m < tiles; ++m) {
    const int64_t frame = (first_tile + m) * s.frames_per_tile, left = a.output_lengths[row] - frame;
    if (left <= 0) break;
    const int64_t frames = left < s.frames_per_tile ? left : s.frames_per_tile;
    for (int64_t column = 0; column < s.columns; column += kColumns) {
      linear_panel<T>(x, frames, products + m * tile_size + column * O::kPoints, O::kPoints, nullptr, nullptr, false,
                      kColumns, y);
      masked_conv2d_store(a, row, column, kColumns, bin, frame, frames, values[0], kColumns);
    }
  }
}

template <class T>
void overlap_save_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  using O = OverlapSave<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  const OverlapSaveShape<T> s(a);
  const Circle<T> circle;
  // The transforms as linear layers: forward packed as linear.h wants its weights, inverse as its inputs.
  T forward[O::kPoints * O::kPoints], inverse[O::kPoints * O::kPoints];
  for (int frame = 0; frame < O::kPoints; ++frame)
    for (int pair = 0; pair < O::kPairs; ++pair) {
      T value[2];
      impulse(circle, pair, frame, value[0], value[1]);
      for (int i = 0; i < 2; ++i) {
        const int column = 2 * pair + i;
        forward[(column / kColumns * O::kPoints + frame) * kColumns + column % kColumns] = value[i];
        inverse[frame * O::kPoints + column] = value[i] * T(pair == 0 ? 1.0 / O::kPoints : 2.0 / O::kPoints);
      }
    }
  T* padded = a.scratch;
  T* spectra = padded + s.padded_size(a);
  T* products = spectra + s.spectra_size(a);
  for (int64_t row = 0; row < a.batch; ++row) {
    const int64_t row_tiles = s.tiles(a.output_lengths[row]), padded_frames = s.padded_frames(a);
    parallel_for(pool, a.in_channels * a.in_bins, [&](int64_t run) {
      masked_conv2d_pad(a, row, run, s.phases, padded_frames, padded + run * s.phases * padded_frames);
    });
    for (int64_t tile = 0; tile < row_tiles; tile += O::kSegment) {
      const int64_t tiles = row_tiles - tile < O::kSegment ? row_tiles - tile : O::kSegment;
      overlap_save_spectra(pool, a, s, forward, padded, tile, tiles, spectra);
      parallel_for(pool, pool.threads, [&](int64_t worker) {
        for (int64_t bin = worker; bin < a.out_bins; bin += pool.threads)
          overlap_save_bin(a, s, inverse, spectra, row, bin, tile, tiles, products + worker * s.products_size());
      });
    }
    parallel_for(pool, a.out_bins, [&](int64_t bin) { masked_conv2d_zero_tail(a, row, bin); });
  }
}

}  // namespace
}  // namespace asrkern::cpu

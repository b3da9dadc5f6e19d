// masked_conv2d by Winograd's F(6, 3) along time, for kernels of three frames without stride (Winograd 1980; Lavin and
// Gray 2016 for convolutions): six output frames take 8 multiplications in place of 18.
//
// A tile of 8 input frames gives 6 output frames. With x̂ = Bᵀx the transform of a tile and ŵ = Gw that of a kernel row,
// the convolution is, for each of 8 points, a matrix product over (kernel_bins, in_channels), and y = Aᵀ of the
// products. The points are 0, ±1, ±2, ±1/2 and ∞; along one axis they lose about one bit more than direct convolution
// does.
//
// Tiles start at multiples of 6 from frame 0, and each sum is one over ascending k_f of linear.h's blocks of input
// channels, so a row's result does not depend on its batch, its padding or the number of threads.
#pragma once

#include "kernels/conv/cpu/masked_conv2d_shared.h"

namespace asrkern::cpu {
namespace {

template <class T>
struct Winograd {
  static constexpr int kTaps = 3, kPoints = 8, kOutputs = kPoints + 1 - kTaps;
  static constexpr int kTiles = 24;  // of one block at most: neighbours in one row
  static constexpr int kBins = 2;    // output bins at least whose products pass by a panel of weights together
  static constexpr int64_t kSegmentBytes = 8 << 20;  // about that much of spectra is held at once
};

// `tiles` tiles of a row from `first` on.
struct WinogradBlock {
  int64_t row, first, tiles;
};

// What follows from a MaskedConv2d.
template <class T>
struct WinogradShape {
  int64_t channels;         // input channels rounded up to whole vectors
  int64_t panels;           // groups of output channels as in linear.h
  int64_t panel_size;       // weights of one point and panel, [kernel_bins][in_channels][kColumns]
  int64_t tiles;            // of the longest block
  int64_t spectra_size;     // x̂ of one block, [in_bins][kPoints][tiles][channels]
  int64_t blocks, segment;  // blocks of all rows, and those whose spectra are held at once

  explicit WinogradShape(const MaskedConv2d<T>& a)
      : channels(ceil_div(a.in_channels, Vec<T>::kWidth) * Vec<T>::kWidth),
        panels(ceil_div(a.out_channels, LinearTile<T>::kColumns)),
        panel_size(a.kernel_bins * a.in_channels * LinearTile<T>::kColumns),
        tiles(row_tiles(a.out_frames) < Winograd<T>::kTiles ? row_tiles(a.out_frames) : Winograd<T>::kTiles),
        spectra_size(a.in_bins * Winograd<T>::kPoints * tiles * channels),
        blocks(0),
        segment(Winograd<T>::kSegmentBytes / (spectra_size * int64_t(sizeof(T))) + 1) {
    for (int64_t row = 0; row < a.batch; ++row) blocks += row_blocks(a.output_lengths[row]);
    if (segment > blocks) segment = blocks;
  }

  static int64_t row_tiles(int64_t frames) { return ceil_div(frames, Winograd<T>::kOutputs); }
  static int64_t row_blocks(int64_t frames) { return ceil_div(row_tiles(frames), Winograd<T>::kTiles); }

  // Blocks are numbered through all rows.
  WinogradBlock block(const MaskedConv2d<T>& a, int64_t index) const {
    int64_t row = 0;
    for (; index >= row_blocks(a.output_lengths[row]); ++row) index -= row_blocks(a.output_lengths[row]);
    const int64_t first = index * Winograd<T>::kTiles, left = row_tiles(a.output_lengths[row]) - first;
    return {row, first, left < Winograd<T>::kTiles ? left : Winograd<T>::kTiles};
  }
};

// [panels][kPoints][kernel_bins][in_channels][kColumns]
template <class T>
int64_t winograd_packed_size(const MaskedConv2d<T>& a) {
  const WinogradShape<T> s(a);
  return s.panels * Winograd<T>::kPoints * s.panel_size;
}

template <class T>
int64_t winograd_scratch_size(const MaskedConv2d<T>& a) {
  const WinogradShape<T> s(a);
  return s.segment * s.spectra_size;
}

// G w of one kernel row.
template <class T>
inline void winograd_weights(const Vec<T> (&w)[3], Vec<T> (&to)[8]) {
  using V = Vec<T>;
  const auto times = [](V x, double factor) { return x * V::set1(T(factor)); };
  const V ends = w[0] + w[2];
  to[0] = w[0];
  to[1] = times(ends + w[1], -2.0 / 9);
  to[2] = times(ends - w[1], -2.0 / 9);
  const V twos = times(w[0], 1.0 / 90) + times(w[2], 2.0 / 45), halves = times(w[0], 32.0 / 45) + times(w[2], 8.0 / 45);
  to[3] = twos + times(w[1], 1.0 / 45);
  to[4] = twos - times(w[1], 1.0 / 45);
  to[5] = halves + times(w[1], 16.0 / 45);
  to[6] = halves - times(w[1], 16.0 / 45);
  to[7] = w[2];
}

// Bᵀ x of one tile.
template <class T>
inline void winograd_input(const Vec<T> (&x)[8], Vec<T> (&to)[8]) {
  using V = Vec<T>;
  const auto c = [](double value) { return V::set1(T(value)); };
  to[0] = fma(x[4] - x[2], c(5.25), x[0] - x[6]);
  const V even1 = fma(x[4], c(-4.25), x[2] + x[6]), odd1 = fma(x[3], c(-4.25), x[1] + x[5]);
  to[1] = even1 + odd1;
  to[2] = even1 - odd1;
  const V even2 = fma(x[2], c(0.25), fma(x[4], c(-1.25), x[6]));
  const V odd2 = fma(x[1], c(0.5), fma(x[3], c(-2.5), x[5] + x[5]));
  to[3] = even2 + odd2;
  to[4] = even2 - odd2;
  const V even3 = fma(x[2], c(4), fma(x[4], c(-5), x[6]));
  const V odd3 = fma(x[5], c(0.5), fma(x[3], c(-2.5), x[1] + x[1]));
  to[5] = even3 + odd3;
  to[6] = even3 - odd3;
  to[7] = fma(x[3] - x[5], c(5.25), x[7] - x[1]);
}

// Aᵀ of the products of one tile.
template <class T>
inline void winograd_output(const Vec<T> (&p)[8], Vec<T> (&to)[6]) {
  using V = Vec<T>;
  const auto c = [](double value) { return V::set1(T(value)); };
  const V even1 = p[1] + p[2], odd1 = p[1] - p[2], even2 = p[3] + p[4], odd2 = p[3] - p[4], even3 = p[5] + p[6],
          odd3 = p[5] - p[6];
  to[0] = (p[0] + even1) + (even2 + even3);
  to[1] = fma(odd3, c(0.5), fma(odd2, c(2), odd1));
  to[2] = fma(even3, c(0.25), fma(even2, c(4), even1));
  to[3] = fma(odd3, c(0.125), fma(odd2, c(8), odd1));
  to[4] = fma(even3, c(0.0625), fma(even2, c(16), even1));
  to[5] = fma(odd3, c(0.03125), fma(odd2, c(32), odd1 + p[7]));
}

// weight: [out_channels, in_channels, kernel_bins, 3]
template <class T>
void winograd_pack(const ThreadPool& pool, const MaskedConv2d<T>& a, const T* weight, T* packed) {
  using W = Winograd<T>;
  using V = Vec<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  const WinogradShape<T> s(a);
  const int64_t kernels = a.in_channels * a.kernel_bins;
  parallel_for(pool, s.panels, [=](int64_t panel) {
    const int64_t first = panel * kColumns;
    const int columns = int(a.out_channels - first < kColumns ? a.out_channels - first : kColumns);
    for (int64_t kernel = 0; kernel < kernels; ++kernel) {
      const int64_t channel = kernel / a.kernel_bins, bin = kernel % a.kernel_bins;
      T taps[W::kTaps][kColumns];
      transpose(weight + (first * kernels + kernel) * W::kTaps, kernels * W::kTaps, columns, kColumns, W::kTaps,
                taps[0], kColumns);
      T* to = packed + panel * W::kPoints * s.panel_size + (bin * a.in_channels + channel) * kColumns;
      for (int column = 0; column < kColumns; column += V::kWidth) {
        V w[W::kTaps], points[W::kPoints];
        for (int tap = 0; tap < W::kTaps; ++tap) w[tap] = V::load(taps[tap] + column);
        winograd_weights(w, points);
        for (int point = 0; point < W::kPoints; ++point) points[point].store(to + point * s.panel_size + column);
      }
    }
  });
}

// x̂ of one block, one input bin and one vector of channels. to: [kPoints][tiles][channels] from that vector on.
template <class T>
void winograd_spectra(const MaskedConv2d<T>& a, const WinogradShape<T>& s, const WinogradBlock& block, int64_t bin,
                      int64_t channel, T* to) {
  using W = Winograd<T>;
  using V = Vec<T>;
  const int64_t frames = block.tiles * W::kOutputs + W::kTaps - 1;
  const int64_t start = block.first * W::kOutputs - a.padding_frames;
  const auto within = [=](int64_t frame) { return frame < 0 ? 0 : (frame > frames ? frames : frame); };
  // The frames that are there; the others are 0.
  const int64_t begin = within(-start), end = within(a.lengths[block.row] - start);
  T x[W::kTiles * W::kOutputs + W::kTaps - 1][V::kWidth];
  for (int64_t frame = 0; frame < frames; ++frame)
    if (frame < begin || frame >= end) V::set1(0).store(x[frame]);
  if (begin < end) {
    const int64_t left = a.in_channels - channel, row_size = a.in_bins * a.in_frames;
    transpose(a.input + (block.row * a.in_channels + channel) * row_size + bin * a.in_frames + start + begin, row_size,
              int(left < V::kWidth ? left : V::kWidth), V::kWidth, end - begin, x[begin], V::kWidth);
  }
  for (int64_t tile = 0; tile < block.tiles; ++tile) {
    V values[W::kPoints], points[W::kPoints];
    for (int i = 0; i < W::kPoints; ++i) values[i] = V::load(x[tile * W::kOutputs + i]);
    winograd_input(values, points);
    for (int point = 0; point < W::kPoints; ++point) points[point].store(to + (point * s.tiles + tile) * s.channels);
  }
}

// One bin's output, before the pool, of one panel of channels of one block. values: [tiles · kOutputs][kColumns]
template <class T>
void winograd_bin(const MaskedConv2d<T>& a, const WinogradShape<T>& s, const WinogradBlock& block, const T* spectra,
                  int64_t bin, int64_t panel, T* values) {
  using W = Winograd<T>;
  using V = Vec<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  T products[W::kPoints][W::kTiles][kColumns];
  const T* x[W::kTiles];
  T* y[W::kTiles];
  int64_t in_bin, k_begin, k_end;
  masked_conv2d_bins(a, bin, in_bin, k_begin, k_end);
  // A window of padding alone.
  if (k_begin >= k_end) std::memset(products, 0, sizeof(products));
  for (int point = 0; point < W::kPoints; ++point) {
    for (int64_t tile = 0; tile < block.tiles; ++tile) y[tile] = products[point][tile];
    for (int64_t k = k_begin; k < k_end; ++k) {
      for (int64_t tile = 0; tile < block.tiles; ++tile)
        x[tile] = spectra + (((in_bin + k) * W::kPoints + point) * s.tiles + tile) * s.channels;
      const T* w = a.weight + (panel * W::kPoints + point) * s.panel_size + k * a.in_channels * kColumns;
      linear_panel<T>(x, block.tiles, w, a.in_channels, nullptr, nullptr, k > k_begin, kColumns, y);
    }
  }
  for (int64_t tile = 0; tile < block.tiles; ++tile)
    for (int column = 0; column < kColumns; column += V::kWidth) {
      V points[W::kPoints], outputs[W::kOutputs];
      for (int point = 0; point < W::kPoints; ++point) points[point] = V::load(products[point][tile] + column);
      winograd_output(points, outputs);
      for (int t = 0; t < W::kOutputs; ++t) outputs[t].store(values + (tile * W::kOutputs + t) * kColumns + column);
    }
  masked_conv2d_activate(a, panel * kColumns, kColumns, block.tiles * W::kOutputs, values, kColumns);
}

// Whether the pool's windows end where blocks do.
template <class T>
bool winograd_pools(const MaskedConv2d<T>& a) {
  return Winograd<T>::kTiles * Winograd<T>::kOutputs % a.pool_frames == 0;
}

// The output of one panel of channels of one block, one bin of it.
template <class T>
void winograd_pooled_bin(const MaskedConv2d<T>& a, const WinogradShape<T>& s, const WinogradBlock& block,
                         const T* spectra, int64_t bin, int64_t panel) {
  using W = Winograd<T>;
  using V = Vec<T>;
  constexpr int kColumns = LinearTile<T>::kColumns;
  T values[W::kTiles * W::kOutputs][kColumns], most[W::kTiles * W::kOutputs][kColumns];
  const int64_t frame = block.first * W::kOutputs, left = a.output_lengths[block.row] - frame;
  const int64_t frames = left < block.tiles * W::kOutputs ? left : block.tiles * W::kOutputs;
  const int64_t pooled = frames / a.pool_frames;
  for (int64_t i = 0; i < a.pool_bins; ++i) {
    winograd_bin(a, s, block, spectra, bin * a.pool_bins + i, panel, values[0]);
    if (!a.pools()) break;
    for (int64_t t = 0; t < pooled * a.pool_frames; ++t) {
      T* to = most[t / a.pool_frames];
      const bool first = i == 0 && t % a.pool_frames == 0;
      for (int column = 0; column < kColumns; column += V::kWidth) {
        const V value = V::load(values[t] + column);
        (first ? value : maximum(value, V::load(to + column))).store(to + column);
      }
    }
  }
  masked_conv2d_scatter(a, block.row, panel * kColumns, kColumns, bin, frame / a.pool_frames, pooled,
                        a.pools() ? most[0] : values[0], kColumns);
}

template <class T>
void winograd_run(const ThreadPool& pool, const MaskedConv2d<T>& a) {
  using W = Winograd<T>;
  using V = Vec<T>;
  const WinogradShape<T> s(a);
  const int64_t vectors = s.channels / V::kWidth, bins = a.pooled_bins();
  const int64_t together = ceil_div(W::kBins, a.pool_bins), groups = ceil_div(bins, together);
  for (int64_t first = 0; first < s.blocks; first += s.segment) {
    const int64_t count = s.blocks - first < s.segment ? s.blocks - first : s.segment;
    parallel_for(pool, count * a.in_bins * vectors, [&](int64_t task) {
      const int64_t vector = task % vectors, bin = task / vectors % a.in_bins, block = task / vectors / a.in_bins;
      T* to = a.scratch + block * s.spectra_size + bin * W::kPoints * s.tiles * s.channels + vector * V::kWidth;
      winograd_spectra(a, s, s.block(a, first + block), bin, vector * V::kWidth, to);
    });
    // A few bins, whose spectra stay in the cache, pass by one panel of weights after the other. Panels are shared out
    // only where bins and blocks are few.
    const int64_t wanted = ceil_div(4 * pool.threads, count * groups), shares = wanted < s.panels ? wanted : s.panels;
    parallel_for(pool, count * groups * shares, [&](int64_t task) {
      const int64_t share = task % shares, begin = task / shares % groups * together, block = task / shares / groups;
      const int64_t end = begin + together < bins ? begin + together : bins;
      for (int64_t panel = share; panel < s.panels; panel += shares)
        for (int64_t bin = begin; bin < end; ++bin)
          winograd_pooled_bin(a, s, s.block(a, first + block), a.scratch + block * s.spectra_size, bin, panel);
    });
  }
  parallel_for(pool, a.batch * bins, [&](int64_t task) { masked_conv2d_zero_tail(a, task / bins, task % bins); });
}

}  // namespace
}  // namespace asrkern::cpu

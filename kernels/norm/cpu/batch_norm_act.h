// BatchNorm with statistics over the valid frames of a padded batch, then a clamp (Hardtanh, ReLU or none), then the
// time mask; forward and backward. There are two memory layouts. Channels last: a frame is `channels` contiguous
// values. Time last: a channel of a row is `inner` runs of `time` contiguous values, as in [N, C, F, T].
//
// Mean and squared deviations are computed of pieces that fit into the cache, and merged in double (Chan et al. 1979),
// so that fp32 inputs with a large mean keep their variance.
#pragma once

#include "kernels/linear/cpu/linear.h"

namespace asrkern::cpu {

struct BatchNormActShape {
  int64_t batch, channels, inner, time;
  bool time_last;
  bool batch_first;        // channels last only: frame (n, t) is at n·time + t, else at t·batch + n
  const int64_t* lengths;  // [batch] valid frames of each row, or null: all
  bool count_padding;      // padding frames count in the statistics, too
};

template <class T>
struct BatchNormActForward {
  const T* input;
  const T* weight;  // [channels] or null: 1
  const T* bias;    // [channels] or null: 0
  T* mean;          // [channels] written in training, else read
  T* var;           // [channels] likewise; biased
  T eps, min, max;
  bool training;
  T* output;
};

template <class T>
struct BatchNormActBackward {
  const T* grad_output;
  const T* input;
  const T* weight;
  const T* bias;
  const T* mean;
  const T* var;
  T eps, min, max;
  bool training;
  T* grad_input;
  T* grad_weight;  // [channels]
  T* grad_bias;    // [channels]
};

namespace {

// Frames per piece when channels are last: 64 frames of 1024 channels are 256 KB.
constexpr int64_t kPiece = 64;

inline int64_t batch_norm_act_frames(const BatchNormActShape& s) { return s.batch * s.time; }

inline bool batch_norm_act_valid(const BatchNormActShape& s, int64_t frame) {
  if (!s.lengths) return true;
  return s.batch_first ? frame % s.time < s.lengths[frame / s.time] : frame / s.batch < s.lengths[frame % s.batch];
}

inline int64_t batch_norm_act_length(const BatchNormActShape& s, int64_t row) {
  return s.lengths ? s.lengths[row] : s.time;
}

// How many values of a channel the statistics are of.
inline int64_t batch_norm_act_count(const BatchNormActShape& s) {
  if (s.count_padding || !s.lengths) return s.batch * s.time * s.inner;
  int64_t count = 0;
  for (int64_t n = 0; n < s.batch; ++n) count += s.lengths[n] * s.inner;
  return count;
}

// How many pieces are summed independently: groups of frames, or rows.
inline int64_t batch_norm_act_pieces(const BatchNormActShape& s) {
  return s.time_last ? s.batch : ceil_div(batch_norm_act_frames(s), kPiece);
}

// Calls body(offset, lanes) for the vectors of one run of `count` values.
template <class T, class F>
inline void for_each_vec(int64_t count, const F& body) {
  constexpr int kWidth = Vec<T>::kWidth;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) body(i, kWidth);
  if (i < count) body(i, int(count - i));
}

template <int kValue>
struct IntConstant {
  static constexpr int value = kValue;
};

// Calls body(offset, vectors, lanes) for a few vectors of channels at a time, so that whole cache lines of a frame are
// read. Only a single vector can have fewer lanes than its width.
template <class T, class F>
inline void for_each_channel_block(int64_t channels, const F& body) {
  constexpr int kWidth = Vec<T>::kWidth, kBlock = 4;
  int64_t c = 0;
  for (; c + kBlock * kWidth <= channels; c += kBlock * kWidth) body(c, IntConstant<kBlock>(), kWidth);
  for (; c < channels; c += kWidth) body(c, IntConstant<1>(), int(channels - c < kWidth ? channels - c : kWidth));
}

template <class T>
inline Vec<T> load_or(const T* p, int64_t i, int lanes, T otherwise) {
  return p ? Vec<T>::load(p + i, lanes) : Vec<T>::set1(otherwise);
}

template <class T>
inline T batch_norm_act_scale(const T* weight, const T* var, T eps, int64_t c) {
  return (weight ? weight[c] : T(1)) / T(std::sqrt(double(var[c]) + double(eps)));
}

// Mean and Σ (x − mean)² of `frames` frames in `inner` runs; the runs are `time` apart.
template <class T>
void batch_norm_act_run_stats(const T* x, int64_t inner, int64_t time, int64_t frames, T& mean, T& deviation) {
  using V = Vec<T>;
  const double count = double(inner * frames > 0 ? inner * frames : 1);
  double total = 0, squares = 0;
  for (int64_t f = 0; f < inner; ++f) {
    // Each sum is of one run: fp32 adds up short chains only. Two sums in turns hide the latency of the additions.
    V sums = V::set1(0), more = V::set1(0);
    const T* run = x + f * time;
    int64_t i = 0;
    for (; i + 2 * V::kWidth <= frames; i += 2 * V::kWidth) {
      sums = sums + V::load(run + i);
      more = more + V::load(run + i + V::kWidth);
    }
    total += sum(sums + more);
    for (; i < frames; ++i) total += run[i];
  }
  mean = T(total / count);
  const V center = V::set1(mean);
  for (int64_t f = 0; f < inner; ++f) {
    V sums = V::set1(0), more = V::set1(0);
    const T* run = x + f * time;
    int64_t i = 0;
    for (; i + 2 * V::kWidth <= frames; i += 2 * V::kWidth) {
      const V d = V::load(run + i) - center, e = V::load(run + i + V::kWidth) - center;
      sums = fma(d, d, sums);
      more = fma(e, e, more);
    }
    squares += sum(sums + more);
    for (; i < frames; ++i) squares += double(run[i] - mean) * double(run[i] - mean);
  }
  deviation = T(squares);
}

// Merges pieces of counts[p] values, means mean[p·stride] and their deviations. Nothing to count gives 0 and 0.
template <class T>
void batch_norm_act_merge(int64_t pieces, const T* piece_mean, const T* piece_deviation, const int64_t* counts,
                          int64_t stride, T& mean, T& var) {
  double total = 0, average = 0, deviation = 0;
  for (int64_t p = 0; p < pieces; ++p) {
    total += double(counts[p]);
    average += double(counts[p]) * double(piece_mean[p * stride]);
  }
  if (total > 0) average /= total;
  for (int64_t p = 0; p < pieces; ++p) {
    const double delta = double(piece_mean[p * stride]) - average;
    deviation += double(piece_deviation[p * stride]) + double(counts[p]) * delta * delta;
  }
  mean = T(average);
  var = T(total > 0 ? deviation / total : 0);
}

// mean, deviation: [pieces, channels]; counts: [pieces]. Channels last.
template <class T>
void batch_norm_act_piece_stats(const ThreadPool& pool, const BatchNormActShape& s, const T* input, T* mean,
                                T* deviation, int64_t* counts) {
  using V = Vec<T>;
  const int64_t frames = batch_norm_act_frames(s);
  parallel_for(pool, batch_norm_act_pieces(s), [=](int64_t piece) {
    const T* rows[kPiece];
    int count = 0;
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame)
      if (s.count_padding || batch_norm_act_valid(s, frame)) rows[count++] = input + frame * s.channels;
    counts[piece] = count;
    const V share = V::set1(T(1) / T(count > 0 ? count : 1));
    for_each_channel_block<T>(s.channels, [&](int64_t c, auto block, int lanes) {
      constexpr int kBlock = decltype(block)::value;
      V center[kBlock], squares[kBlock];
      for (int b = 0; b < kBlock; ++b) center[b] = squares[b] = V::set1(0);
      for (int r = 0; r < count; ++r)
        for (int b = 0; b < kBlock; ++b) center[b] = center[b] + V::load(rows[r] + c + b * V::kWidth, lanes);
      for (int b = 0; b < kBlock; ++b) center[b] = center[b] * share;
      for (int r = 0; r < count; ++r)
        for (int b = 0; b < kBlock; ++b) {
          const V d = V::load(rows[r] + c + b * V::kWidth, lanes) - center[b];
          squares[b] = fma(d, d, squares[b]);
        }
      for (int b = 0; b < kBlock; ++b) {
        center[b].store(mean + piece * s.channels + c + b * V::kWidth, lanes);
        squares[b].store(deviation + piece * s.channels + c + b * V::kWidth, lanes);
      }
    });
  });
}

// scale: [channels] scratch. piece_mean, piece_deviation: [pieces, channels] and piece_counts: [pieces] scratch, used
// in training only.
template <class T>
void batch_norm_act_forward(const ThreadPool& pool, const BatchNormActShape& s, const BatchNormActForward<T>& a,
                            T* scale, T* piece_mean, T* piece_deviation, int64_t* piece_counts) {
  using V = Vec<T>;
  const int64_t pieces = batch_norm_act_pieces(s);
  if (s.time_last) {
    if (a.training)
      for (int64_t n = 0; n < s.batch; ++n)
        piece_counts[n] = (s.count_padding ? s.time : batch_norm_act_length(s, n)) * s.inner;
    // One channel at a time: its values are still in the cache from the statistics when they are normalised.
    parallel_for(pool, s.channels, [=](int64_t c) {
      if (a.training) {
        for (int64_t n = 0; n < s.batch; ++n)
          batch_norm_act_run_stats(a.input + (n * s.channels + c) * s.inner * s.time, s.inner, s.time,
                                   s.count_padding ? s.time : batch_norm_act_length(s, n),
                                   piece_mean[n * s.channels + c], piece_deviation[n * s.channels + c]);
        batch_norm_act_merge(pieces, piece_mean + c, piece_deviation + c, piece_counts, s.channels, a.mean[c],
                             a.var[c]);
      }
      const V mean = V::set1(a.mean[c]), factor = V::set1(batch_norm_act_scale(a.weight, a.var, a.eps, c)),
              bias = V::set1(a.bias ? a.bias[c] : T(0));
      // Backwards: the row that was read last is the likeliest to be in the cache.
      for (int64_t n = s.batch - 1; n >= 0; --n)
        for (int64_t f = 0; f < s.inner; ++f) {
          const int64_t run = ((n * s.channels + c) * s.inner + f) * s.time, length = batch_norm_act_length(s, n);
          const T* x = a.input + run;
          T* y = a.output + run;
          for_each_vec<T>(length, [&](int64_t i, int lanes) {
            clamp(fma(V::load(x + i, lanes) - mean, factor, bias), a.min, a.max).store(y + i, lanes);
          });
          for (int64_t i = length; i < s.time; ++i) y[i] = T(0);
        }
    });
    return;
  }
  if (a.training) batch_norm_act_piece_stats(pool, s, a.input, piece_mean, piece_deviation, piece_counts);
  parallel_for(pool, s.channels, [=](int64_t c) {
    if (a.training)
      batch_norm_act_merge(pieces, piece_mean + c, piece_deviation + c, piece_counts, s.channels, a.mean[c], a.var[c]);
    scale[c] = batch_norm_act_scale(a.weight, a.var, a.eps, c);
  });
  parallel_for(pool, pieces, [=](int64_t piece) {
    const int64_t frames = batch_norm_act_frames(s);
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame) {
      const T* x = a.input + frame * s.channels;
      T* y = a.output + frame * s.channels;
      if (!batch_norm_act_valid(s, frame)) {
        for (int64_t c = 0; c < s.channels; ++c) y[c] = T(0);
        continue;
      }
      for_each_vec<T>(s.channels, [&](int64_t c, int lanes) {
        const V centered = V::load(x + c, lanes) - V::load(a.mean + c, lanes);
        clamp(fma(centered, V::load(scale + c, lanes), load_or(a.bias, c, lanes, T(0))), a.min, a.max)
            .store(y + c, lanes);
      });
    }
  });
}

// The coefficients of one channel's gradient. With g, the gradient where the clamp let x through:
// grad_input = (g − average − centered · slope) · scale.
template <class T>
struct BatchNormActSlope {
  T average, slope, scale;

  // total = Σ g, dot = Σ g · (x − mean).
  BatchNormActSlope(const BatchNormActBackward<T>& a, int64_t c, double count, double total, double dot) {
    const double inverse_std = double(batch_norm_act_scale<T>(nullptr, a.var, a.eps, c));
    a.grad_bias[c] = T(total);
    a.grad_weight[c] = T(dot * inverse_std);
    const bool through_stats = a.training && count > 0;
    average = through_stats ? T(total / count) : T(0);
    slope = through_stats ? T(dot / count * inverse_std * inverse_std) : T(0);
    scale = batch_norm_act_scale(a.weight, a.var, a.eps, c);
  }
};

// scale: [3, channels] scratch. piece_sum, piece_dot: [pieces, channels] scratch, used with channels last only.
//
// With g = grad_output where the clamp let x through and the frame is valid (else 0), x̂ = (x − mean)/σ and m counted
// values:
//   grad_bias = Σ g   grad_weight = Σ g x̂   grad_input = weight/σ · (g − (Σ g + x̂ Σ g x̂)/m)   (training)
// Where the clamp let x through is computed again, with the forward pass's own arithmetic: cheaper than reading a mask.
template <class T>
void batch_norm_act_backward(const ThreadPool& pool, const BatchNormActShape& s, const BatchNormActBackward<T>& a,
                             T* scale, T* piece_sum, T* piece_dot) {
  using V = Vec<T>;
  const int64_t frames = batch_norm_act_frames(s), pieces = batch_norm_act_pieces(s);
  const double count = double(batch_norm_act_count(s));
  if (s.time_last) {
    parallel_for(pool, s.channels, [=](int64_t c) {
      const V mean = V::set1(a.mean[c]), factor = V::set1(batch_norm_act_scale(a.weight, a.var, a.eps, c)),
              bias = V::set1(a.bias ? a.bias[c] : T(0));
      double total = 0, dot = 0;
      for (int64_t n = 0; n < s.batch; ++n)
        for (int64_t f = 0; f < s.inner; ++f) {
          const int64_t run = ((n * s.channels + c) * s.inner + f) * s.time;
          V sums = V::set1(0), dots = V::set1(0);
          for_each_vec<T>(batch_norm_act_length(s, n), [&](int64_t i, int lanes) {
            // Lanes past the run's end hold grad_output = 0.
            const V centered = V::load(a.input + run + i, lanes) - mean;
            const V g = inside(V::load(a.grad_output + run + i, lanes), fma(centered, factor, bias), a.min, a.max);
            sums = sums + g;
            dots = fma(g, centered, dots);
          });
          total += sum(sums);
          dot += sum(dots);
        }
      const BatchNormActSlope<T> k(a, c, count, total, dot);
      const V average = V::set1(k.average), slope = V::set1(k.slope);
      for (int64_t n = s.batch - 1; n >= 0; --n)
        for (int64_t f = 0; f < s.inner; ++f) {
          const int64_t run = ((n * s.channels + c) * s.inner + f) * s.time, length = batch_norm_act_length(s, n);
          for_each_vec<T>(length, [&](int64_t i, int lanes) {
            const V centered = V::load(a.input + run + i, lanes) - mean;
            const V g = inside(V::load(a.grad_output + run + i, lanes), fma(centered, factor, bias), a.min, a.max);
            (fnma(centered, slope, g - average) * factor).store(a.grad_input + run + i, lanes);
          });
          for_each_vec<T>(s.time - length, [&](int64_t i, int lanes) {
            const V centered = V::load(a.input + run + length + i, lanes) - mean;
            const V g = s.count_padding ? fnma(centered, slope, V::set1(0) - average) * factor : V::set1(0);
            g.store(a.grad_input + run + length + i, lanes);
          });
        }
    });
    return;
  }
  for (int64_t c = 0; c < s.channels; ++c) scale[c] = batch_norm_act_scale(a.weight, a.var, a.eps, c);
  parallel_for(pool, pieces, [=](int64_t piece) {
    int64_t valid[kPiece];
    int rows = 0;
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame)
      if (batch_norm_act_valid(s, frame)) valid[rows++] = frame * s.channels;
    for_each_channel_block<T>(s.channels, [&](int64_t first, auto block, int lanes) {
      constexpr int kBlock = decltype(block)::value;
      V sums[kBlock], dots[kBlock];
      for (int b = 0; b < kBlock; ++b) sums[b] = dots[b] = V::set1(0);
      for (int r = 0; r < rows; ++r)
        for (int b = 0; b < kBlock; ++b) {
          const int64_t c = first + b * V::kWidth;
          const V centered = V::load(a.input + valid[r] + c, lanes) - V::load(a.mean + c, lanes);
          const V y = fma(centered, V::load(scale + c, lanes), load_or(a.bias, c, lanes, T(0)));
          const V g = inside(V::load(a.grad_output + valid[r] + c, lanes), y, a.min, a.max);
          sums[b] = sums[b] + g;
          dots[b] = fma(g, centered, dots[b]);
        }
      for (int b = 0; b < kBlock; ++b) {
        sums[b].store(piece_sum + piece * s.channels + first + b * V::kWidth, lanes);
        dots[b].store(piece_dot + piece * s.channels + first + b * V::kWidth, lanes);
      }
    });
  });
  T *average = scale + s.channels, *slope = scale + 2 * s.channels;
  parallel_for(pool, s.channels, [=](int64_t c) {
    double total = 0, dot = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      total += double(piece_sum[p * s.channels + c]);
      dot += double(piece_dot[p * s.channels + c]);
    }
    const BatchNormActSlope<T> k(a, c, count, total, dot);
    average[c] = k.average;
    slope[c] = k.slope;
  });
  parallel_for(pool, pieces, [=](int64_t piece) {
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame) {
      const int64_t row = frame * s.channels;
      const bool valid = batch_norm_act_valid(s, frame);
      if (!valid && !s.count_padding) {
        for (int64_t c = 0; c < s.channels; ++c) a.grad_input[row + c] = T(0);
        continue;
      }
      for_each_vec<T>(s.channels, [&](int64_t c, int lanes) {
        const V centered = V::load(a.input + row + c, lanes) - V::load(a.mean + c, lanes);
        const V factor = V::load(scale + c, lanes);
        const V y = fma(centered, factor, load_or(a.bias, c, lanes, T(0)));
        const V g = valid ? inside(V::load(a.grad_output + row + c, lanes), y, a.min, a.max) : V::set1(0);
        (fnma(centered, V::load(slope + c, lanes), g - V::load(average + c, lanes)) * factor)
            .store(a.grad_input + row + c, lanes);
      });
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu

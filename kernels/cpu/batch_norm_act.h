// BatchNorm with statistics over the valid frames of a padded batch, then a clamp (Hardtanh, ReLU or none), then the
// time mask; forward and backward. Two memory layouts: channels last (one frame is `channels` contiguous values) and
// time last (a channel of a row is `inner` runs of `time` contiguous values, as [N, C, F, T]).
//
// Statistics: mean and squared deviations of pieces small enough for the cache, merged in double (Chan et al. 1979), so
// that fp32 inputs with a large mean keep their variance.
#pragma once

#include "kernels/cpu/linear.h"

namespace asrkern::cpu {

struct BatchNormActShape {
  int64_t batch, channels, inner, time;
  bool time_last;
  bool batch_first;        // channels last only: frame (n, t) is at n·time + t, else at t·batch + n
  const int64_t* lengths;  // [batch] valid frames of each row, or null: all
  bool count_padding;      // statistics over padding frames too
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
  const T* output;
  const T* weight;
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

// Values per channel that the statistics run over.
inline int64_t batch_norm_act_count(const BatchNormActShape& s) {
  if (s.count_padding || !s.lengths) return s.batch * s.time * s.inner;
  int64_t count = 0;
  for (int64_t n = 0; n < s.batch; ++n) count += s.lengths[n] * s.inner;
  return count;
}

// Pieces that are summed independently: groups of frames, or rows.
inline int64_t batch_norm_act_pieces(const BatchNormActShape& s) {
  return s.time_last ? s.batch : ceil_div(batch_norm_act_frames(s), kPiece);
}

// The vectors of one run of `count` values: body(offset, lanes).
template <class T, class F>
inline void for_each_vec(int64_t count, const F& body) {
  constexpr int kWidth = Vec<T>::kWidth;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) body(i, kWidth);
  if (i < count) body(i, int(count - i));
}

template <class T>
inline Vec<T> load_or(const T* p, int64_t i, int lanes, T otherwise) {
  return p ? Vec<T>::load(p + i, lanes) : Vec<T>::set1(otherwise);
}

// mean, deviation: [pieces, channels] the mean and Σ (x − mean)² of each piece; counts: [pieces] values per channel.
template <class T>
void batch_norm_act_piece_stats(const ThreadPool& pool, const BatchNormActShape& s, const T* input, T* mean,
                                T* deviation, int64_t* counts) {
  using V = Vec<T>;
  if (s.time_last) {
    for (int64_t n = 0; n < s.batch; ++n)
      counts[n] = (s.count_padding ? s.time : batch_norm_act_length(s, n)) * s.inner;
    parallel_for(pool, s.batch * s.channels, [=](int64_t task) {
      const int64_t n = task / s.channels, length = s.count_padding ? s.time : batch_norm_act_length(s, n);
      const T* x = input + task * s.inner * s.time;
      // Partial sums per run keep the fp32 chains short.
      double total = 0, squares = 0;
      for (int64_t f = 0; f < s.inner; ++f) {
        V sums = V::set1(0);
        for_each_vec<T>(length, [&](int64_t i, int lanes) { sums = sums + V::load(x + f * s.time + i, lanes); });
        total += sum(sums);
      }
      const T average = T(total / double(counts[n] > 0 ? counts[n] : 1));
      const V center = V::set1(average);
      for (int64_t f = 0; f < s.inner; ++f) {
        V sums = V::set1(0);
        const T* run = x + f * s.time;
        int64_t i = 0;
        for (; i + V::kWidth <= length; i += V::kWidth) {
          const V d = V::load(run + i) - center;
          sums = fma(d, d, sums);
        }
        squares += sum(sums);
        for (; i < length; ++i) squares += double(run[i] - average) * double(run[i] - average);
      }
      mean[task] = average;
      deviation[task] = T(squares);
    });
    return;
  }
  const int64_t frames = batch_norm_act_frames(s);
  parallel_for(pool, batch_norm_act_pieces(s), [=](int64_t piece) {
    const T* rows[kPiece];
    int count = 0;
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame)
      if (s.count_padding || batch_norm_act_valid(s, frame)) rows[count++] = input + frame * s.channels;
    counts[piece] = count;
    const V scale = V::set1(T(1) / T(count > 0 ? count : 1));
    for_each_vec<T>(s.channels, [&](int64_t c, int lanes) {
      V sums = V::set1(0), squares = V::set1(0);
      for (int r = 0; r < count; ++r) sums = sums + V::load(rows[r] + c, lanes);
      const V center = sums * scale;
      for (int r = 0; r < count; ++r) {
        const V d = V::load(rows[r] + c, lanes) - center;
        squares = fma(d, d, squares);
      }
      center.store(mean + piece * s.channels + c, lanes);
      squares.store(deviation + piece * s.channels + c, lanes);
    });
  });
}

// Merges the pieces; leaves mean 0 and variance 0 where there is nothing to count.
template <class T>
void batch_norm_act_merge(const BatchNormActShape& s, const T* piece_mean, const T* piece_deviation,
                          const int64_t* counts, T* mean, T* var) {
  const int64_t pieces = batch_norm_act_pieces(s);
  for (int64_t c = 0; c < s.channels; ++c) {
    double average = 0, deviation = 0, seen = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      if (counts[p] == 0) continue;
      const double count = double(counts[p]), delta = double(piece_mean[p * s.channels + c]) - average;
      const double total = seen + count;
      average += delta * count / total;
      deviation += double(piece_deviation[p * s.channels + c]) + delta * delta * seen * count / total;
      seen = total;
    }
    mean[c] = T(average);
    var[c] = T(seen > 0 ? deviation / seen : 0);
  }
}

template <class T>
inline T batch_norm_act_scale(const T* weight, const T* var, T eps, int64_t c) {
  return (weight ? weight[c] : T(1)) / T(std::sqrt(double(var[c]) + double(eps)));
}

// scale: [channels] scratch. piece_*: batch_norm_act_piece_stats' scratch, used in training only.
template <class T>
void batch_norm_act_forward(const ThreadPool& pool, const BatchNormActShape& s, const BatchNormActForward<T>& a,
                            T* scale, T* piece_mean, T* piece_deviation, int64_t* piece_counts) {
  using V = Vec<T>;
  if (a.training) {
    batch_norm_act_piece_stats(pool, s, a.input, piece_mean, piece_deviation, piece_counts);
    batch_norm_act_merge(s, piece_mean, piece_deviation, piece_counts, a.mean, a.var);
  }
  for (int64_t c = 0; c < s.channels; ++c) scale[c] = batch_norm_act_scale(a.weight, a.var, a.eps, c);
  if (s.time_last) {
    parallel_for(pool, s.batch * s.channels, [=](int64_t task) {
      const int64_t c = task % s.channels, length = batch_norm_act_length(s, task / s.channels);
      const V mean = V::set1(a.mean[c]), factor = V::set1(scale[c]), bias = V::set1(a.bias ? a.bias[c] : T(0));
      for (int64_t f = 0; f < s.inner; ++f) {
        const T* x = a.input + (task * s.inner + f) * s.time;
        T* y = a.output + (task * s.inner + f) * s.time;
        for_each_vec<T>(length, [&](int64_t i, int lanes) {
          clamp(fma(V::load(x + i, lanes) - mean, factor, bias), a.min, a.max).store(y + i, lanes);
        });
        for (int64_t i = length; i < s.time; ++i) y[i] = T(0);
      }
    });
    return;
  }
  parallel_for(pool, batch_norm_act_pieces(s), [=](int64_t piece) {
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

// scale: [3, channels] scratch. piece_sum, piece_dot: [pieces, channels] scratch.
//
// With g = grad_output where the clamp let through and the frame is valid, x̂ = (x − mean)/σ and m counted values:
//   grad_bias = Σ g   grad_weight = Σ g x̂   grad_input = weight/σ · (g − (Σ g + x̂ Σ g x̂)/m)   (training)
template <class T>
void batch_norm_act_backward(const ThreadPool& pool, const BatchNormActShape& s, const BatchNormActBackward<T>& a,
                             T* scale, T* piece_sum, T* piece_dot) {
  using V = Vec<T>;
  T* inverse_std = scale + s.channels;
  T* dot_over_count = scale + 2 * s.channels;
  for (int64_t c = 0; c < s.channels; ++c) {
    scale[c] = batch_norm_act_scale(a.weight, a.var, a.eps, c);
    inverse_std[c] = batch_norm_act_scale<T>(nullptr, a.var, a.eps, c);
  }
  const int64_t frames = batch_norm_act_frames(s), pieces = batch_norm_act_pieces(s);
  if (s.time_last) {
    parallel_for(pool, s.batch * s.channels, [=](int64_t task) {
      const int64_t c = task % s.channels, length = batch_norm_act_length(s, task / s.channels);
      const V mean = V::set1(a.mean[c]), factor = V::set1(inverse_std[c]);
      double total = 0, dot = 0;
      for (int64_t f = 0; f < s.inner; ++f) {
        const int64_t run = (task * s.inner + f) * s.time;
        V sums = V::set1(0), dots = V::set1(0);
        for_each_vec<T>(length, [&](int64_t i, int lanes) {
          // Lanes past the run's end hold g = 0.
          const V g = inside(V::load(a.grad_output + run + i, lanes), V::load(a.output + run + i, lanes), a.min, a.max);
          sums = sums + g;
          dots = fma(g, (V::load(a.input + run + i, lanes) - mean) * factor, dots);
        });
        total += sum(sums);
        dot += sum(dots);
      }
      piece_sum[task] = T(total);
      piece_dot[task] = T(dot);
    });
  } else {
    parallel_for(pool, pieces, [=](int64_t piece) {
      int64_t valid[kPiece];
      int count = 0;
      for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame)
        if (batch_norm_act_valid(s, frame)) valid[count++] = frame * s.channels;
      for_each_vec<T>(s.channels, [&](int64_t c, int lanes) {
        V sums = V::set1(0), dots = V::set1(0);
        const V mean = V::load(a.mean + c, lanes), factor = V::load(inverse_std + c, lanes);
        for (int r = 0; r < count; ++r) {
          const int64_t i = valid[r] + c;
          const V g = inside(V::load(a.grad_output + i, lanes), V::load(a.output + i, lanes), a.min, a.max);
          sums = sums + g;
          dots = fma(g, (V::load(a.input + i, lanes) - mean) * factor, dots);
        }
        sums.store(piece_sum + piece * s.channels + c, lanes);
        dots.store(piece_dot + piece * s.channels + c, lanes);
      });
    });
  }
  const double count = double(batch_norm_act_count(s));
  T* sum_over_count = inverse_std;  // inverse_std is folded into dot_over_count below
  for (int64_t c = 0; c < s.channels; ++c) {
    double total = 0, dot = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      total += double(piece_sum[p * s.channels + c]);
      dot += double(piece_dot[p * s.channels + c]);
    }
    a.grad_bias[c] = T(total);
    a.grad_weight[c] = T(dot);
    const bool through_stats = a.training && count > 0;
    dot_over_count[c] = through_stats ? T(dot / count * double(inverse_std[c])) : T(0);
    sum_over_count[c] = through_stats ? T(total / count) : T(0);
  }
  if (s.time_last) {
    parallel_for(pool, s.batch * s.channels, [=](int64_t task) {
      const int64_t c = task % s.channels, length = batch_norm_act_length(s, task / s.channels);
      const V mean = V::set1(a.mean[c]), factor = V::set1(scale[c]);
      const V average = V::set1(sum_over_count[c]), slope = V::set1(T(0) - dot_over_count[c]);
      for (int64_t f = 0; f < s.inner; ++f) {
        const int64_t run = (task * s.inner + f) * s.time;
        for_each_vec<T>(length, [&](int64_t i, int lanes) {
          const V g = inside(V::load(a.grad_output + run + i, lanes), V::load(a.output + run + i, lanes), a.min, a.max);
          const V centered = V::load(a.input + run + i, lanes) - mean;
          (fma(centered, slope, g - average) * factor).store(a.grad_input + run + i, lanes);
        });
        for_each_vec<T>(s.time - length, [&](int64_t i, int lanes) {
          const V centered = V::load(a.input + run + length + i, lanes) - mean;
          const V g = s.count_padding ? fma(centered, slope, V::set1(0) - average) * factor : V::set1(0);
          g.store(a.grad_input + run + length + i, lanes);
        });
      }
    });
    return;
  }
  parallel_for(pool, pieces, [=](int64_t piece) {
    for (int64_t frame = piece * kPiece; frame < frames && frame < (piece + 1) * kPiece; ++frame) {
      const int64_t row = frame * s.channels;
      const bool valid = batch_norm_act_valid(s, frame);
      if (!valid && !s.count_padding) {
        for (int64_t c = 0; c < s.channels; ++c) a.grad_input[row + c] = T(0);
        continue;
      }
      for_each_vec<T>(s.channels, [&](int64_t c, int lanes) {
        const int64_t i = row + c;
        const V g =
            valid ? inside(V::load(a.grad_output + i, lanes), V::load(a.output + i, lanes), a.min, a.max) : V::set1(0);
        const V centered = V::load(a.input + i, lanes) - V::load(a.mean + c, lanes);
        const V step = g - V::load(sum_over_count + c, lanes) - centered * V::load(dot_over_count + c, lanes);
        (step * V::load(scale + c, lanes)).store(a.grad_input + i, lanes);
      });
    }
  });
}

}  // namespace
}  // namespace asrkern::cpu

// Long short-term memory.
//
// torch.nn.LSTM's formula, with p_· = W_i· x + b_i· + W_h· h + b_h·:
//     i = σ(p_i)   f = σ(p_f)   g = tanh(p_g)   o = σ(p_o)   c' = f ∘ c + i ∘ g   h' = o ∘ tanh(c')
#pragma once

#include "kernels/rnn/cpu/recurrent.h"

namespace asrkern::cpu {

// Gates in the order i, f, g, o; gates_x has all of b_hh in; reserve: i, f, g, o, c'.
template <class T, class W = T>
struct LstmForward : RecurrentForward<T, W> {
  T* c;  // [rows, hidden_size] c0 on entry, c_n on return
};

template <class T>
struct LstmBackward : RecurrentBackward<T> {
  const T* c0;  // [rows, hidden_size]
  T* grad_c;    // [rows, hidden_size] that of c_n on entry, of c0 on return; carries dc between
};

namespace {

template <class T, class W = T>
struct LstmCell {
  using Value = T;
  using Weight = W;
  using Forward = LstmForward<T, W>;
  using Backward = LstmBackward<T>;
  using V = Vec<T>;
  static constexpr int kGates = 4, kSaved = 5;
  static constexpr bool kHasGradLastX = false;

  static V forward(const Forward& a, int64_t row, int64_t frame, const T* x, int64_t unit, int count,
                   const V (&gates_h)[kGates], V) {
    const int64_t size = a.hidden_size;
    T* state = a.c + row * size + unit;
    const V i = sigmoid(V::load(x, count) + gates_h[0]);
    const V f = sigmoid(V::load(x + size, count) + gates_h[1]);
    const V g = tanh(V::load(x + 2 * size, count) + gates_h[2]);
    const V o = sigmoid(V::load(x + 3 * size, count) + gates_h[3]);
    const V c = fma(f, V::load(state, count), i * g);
    c.store(state, count);
    if (a.reserve) {
      T* saved = a.reserve + frame * kSaved * size + unit;
      i.store(saved, count);
      f.store(saved + size, count);
      g.store(saved + 2 * size, count);
      o.store(saved + 3 * size, count);
      c.store(saved + 4 * size, count);
    }
    return o * tanh(c);
  }

  static void backward(const Backward& a, int64_t row, int64_t place, int64_t frame, int64_t frame_before, const T*,
                       int64_t begin, int64_t end) {
    const int64_t size = a.hidden_size;
    const V zero = V::set1(0), one = V::set1(1);
    const T* saved = a.reserve + frame * kSaved * size;
    const T* c_before = frame_before < 0 ? a.c0 + row * size : a.reserve + (frame_before * kSaved + 4) * size;
    const T* grad_output = a.grad_outputs[frame];
    T* grad_h = a.grad_h + row * size;
    T* grad_c = a.grad_c + row * size;
    T* gates = a.grad_gates + place * kGates * size;
    for (int64_t j = begin; j < end; j += V::kWidth) {
      const int count = int(end - j < V::kWidth ? end - j : V::kWidth);
      const V dh = V::load(grad_output + j, count) + V::load(grad_h + j, count);
      const V i = V::load(saved + j, count), f = V::load(saved + size + j, count);
      const V g = V::load(saved + 2 * size + j, count), o = V::load(saved + 3 * size + j, count);
      const V tanh_c = tanh(V::load(saved + 4 * size + j, count));
      const V dc = fma(dh * o, one - tanh_c * tanh_c, V::load(grad_c + j, count));
      (dc * g * i * (one - i)).store(gates + j, count);
      (dc * V::load(c_before + j, count) * f * (one - f)).store(gates + size + j, count);
      (dc * i * (one - g * g)).store(gates + 2 * size + j, count);
      (dh * tanh_c * o * (one - o)).store(gates + 3 * size + j, count);
      (dc * f).store(grad_c + j, count);
      zero.store(grad_h + j, count);
    }
  }
};

}  // namespace
}  // namespace asrkern::cpu

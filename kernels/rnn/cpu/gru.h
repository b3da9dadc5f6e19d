// Gated recurrent unit.
//
// torch.nn.GRU's formula:   r = σ(x_r + h_r)   z = σ(x_z + h_z)   n = tanh(x_n + r ∘ h_n)   h' = (1 − z) ∘ n + z ∘ h
// with x_· = W_i· x + b_i· and h_· = W_h· h + b_h·.
#pragma once

#include "kernels/rnn/cpu/recurrent.h"

namespace asrkern::cpu {

// Gates in the order r, z, n; gates_x has the r and z parts of b_hh in; reserve: r, z, n, h_n.
template <class T, class W = T>
struct GruForward : RecurrentForward<T, W> {
  const T* bias_n;  // [hidden_size] the n part of b_hh, or null
};

template <class T>
using GruBackward = RecurrentBackward<T>;

namespace {

template <class T, class W = T>
struct GruCell {
  using Value = T;
  using Weight = W;
  using Forward = GruForward<T, W>;
  using Backward = GruBackward<T>;
  using V = Vec<T>;
  static constexpr int kGates = 3, kSaved = 4;
  static constexpr bool kHasGradLastX = true;  // n's gates_x is outside of the reset gate's product

  static V forward(const Forward& a, int64_t, int64_t frame, const T* x, int64_t unit, int count,
                   const V (&gates_h)[kGates], V h) {
    const int64_t size = a.hidden_size;
    const V r = sigmoid(V::load(x, count) + gates_h[0]);
    const V z = sigmoid(V::load(x + size, count) + gates_h[1]);
    const V h_n = gates_h[2] + (a.bias_n ? V::load(a.bias_n + unit, count) : V::set1(0));
    const V n = tanh(fma(r, h_n, V::load(x + 2 * size, count)));
    if (a.reserve) {
      T* saved = a.reserve + frame * kSaved * size + unit;
      r.store(saved, count);
      z.store(saved + size, count);
      n.store(saved + 2 * size, count);
      h_n.store(saved + 3 * size, count);
    }
    return fma(z, h - n, n);
  }

  static void backward(const Backward& a, int64_t row, int64_t place, int64_t frame, int64_t, const T* h_before,
                       int64_t begin, int64_t end) {
    const int64_t size = a.hidden_size;
    const V one = V::set1(1);
    const T* saved = a.reserve + frame * kSaved * size;
    const T* grad_output = a.grad_outputs[frame];
    T* grad_h = a.grad_h + row * size;
    T* gates = a.grad_gates + place * kGates * size;
    T* n_x = a.grad_last_x + place * size;
    for (int64_t j = begin; j < end; j += V::kWidth) {
      const int count = int(end - j < V::kWidth ? end - j : V::kWidth);
      const V dh = V::load(grad_output + j, count) + V::load(grad_h + j, count);
      const V r = V::load(saved + j, count), z = V::load(saved + size + j, count);
      const V n = V::load(saved + 2 * size + j, count), h_n = V::load(saved + 3 * size + j, count);
      const V h = V::load(h_before + j, count);
      const V dn = dh * (one - z) * (one - n * n);
      const V dz = dh * (h - n) * z * (one - z);
      const V dr = dn * h_n * r * (one - r);
      dr.store(gates + j, count);
      dz.store(gates + size + j, count);
      (dn * r).store(gates + 2 * size + j, count);
      dn.store(n_x + j, count);
      (dh * z).store(grad_h + j, count);
    }
  }
};

}  // namespace
}  // namespace asrkern::cpu

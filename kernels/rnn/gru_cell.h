// One hidden unit of the gated recurrent unit at one step, forward and backward (formula: kernels/rnn/cpu/gru.h).
#pragma once

#include <cmath>

#include "kernels/common/host_device.h"

namespace asrkern {

// The device's approximations are off by 2⁻²¹ of their value: with values up to 1, no more than float32's rounding over
// a sum of some units.
ASRKERN_HOST_DEVICE inline float gru_exp(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return expf(x);
#endif
}

// a / b; 0 where b has overflowed.
ASRKERN_HOST_DEVICE inline float gru_divide(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);
#else
  return a / b;
#endif
}

ASRKERN_HOST_DEVICE inline float gru_sigmoid(float x) { return gru_divide(1.0f, 1.0f + gru_exp(-x)); }
ASRKERN_HOST_DEVICE inline float gru_tanh(float x) { return 1.0f - gru_divide(2.0f, 1.0f + gru_exp(2.0f * x)); }

struct GruCellForward {
  float r, z, n, h_n, h;  // h_n: W_hn h + b_hn; h: the next state
};

// x: W_ih x of the gates r, z, n, without bias; sums: W_hh h of them; bias: those of r and z summed, of n in W_ih's and
// in W_hh's part.
ASRKERN_HOST_DEVICE inline GruCellForward gru_cell_forward(const float (&x)[3], const float (&sums)[3],
                                                           const float (&bias)[4], float h) {
  GruCellForward cell;
  cell.r = gru_sigmoid(x[0] + sums[0] + bias[0]);
  cell.z = gru_sigmoid(x[1] + sums[1] + bias[1]);
  cell.h_n = sums[2] + bias[3];
  cell.n = gru_tanh(fmaf(cell.r, cell.h_n, x[2] + bias[2]));
  cell.h = fmaf(cell.z, h - cell.n, cell.n);
  return cell;
}

struct GruCellBackward {
  float r, z, n, h_n;  // gradients of the gates' sums; n: of its part from the input, h_n: of its part from the state
  float carried;       // what of the gradient reaches the previous state past W_hh
};

// grad: of this step's state; h: the state before it; the others as saved by the forward pass.
ASRKERN_HOST_DEVICE inline GruCellBackward gru_cell_backward(float grad, float r, float z, float n, float h_n,
                                                             float h) {
  GruCellBackward cell;
  cell.n = grad * (1.0f - z) * (1.0f - n * n);
  cell.z = grad * (h - n) * z * (1.0f - z);
  cell.r = cell.n * h_n * r * (1.0f - r);
  cell.h_n = cell.n * r;
  cell.carried = grad * z;
  return cell;
}

}  // namespace asrkern

// One hidden unit of the gated recurrent unit at one step, forward and backward (formula: kernels/rnn/cpu/gru.h).
#pragma once

#include <cmath>

#include "kernels/common/host_device.h"

namespace asrkern {

// The device's approximations are off by 2⁻²¹ of their value. For values up to 1 that is no more than the rounding of
// float32 in a sum over some units.
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

// x: W_ih x of the gates r, z, n, without bias. sums: W_hh h of the same gates. bias: of r and of z both biases added
// up, of n that of W_ih's part and that of W_hh's part.
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
  float r, z, n, h_n;  // gradients of the gates' sums; n's has two parts, the input's (n) and the state's (h_n)
  float carried;       // the part of the gradient that reaches the previous state without W_hh
};

// grad: of this step's state; h: the state before it; the others as the forward pass saved them.
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

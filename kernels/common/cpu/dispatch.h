// The kernels on tensors of one instruction set (ISA), as a table of functions.
#pragma once

#include <cstdint>

#include "kernels/common/cpu/isa.h"
#include "kernels/conv/cpu/masked_conv2d.h"
#include "kernels/linear/cpu/linear.h"
#include "kernels/linear/cpu/linear_dot.h"
#include "kernels/norm/cpu/batch_norm_act.h"
#include "kernels/rnn/cpu/cell.h"
#include "kernels/rnn/cpu/speller.h"
#include "kernels/transformer/cpu/attention.h"

namespace asrkern::cpu {

// Those of linear with weights stored as W.
template <class T, class W>
struct LinearKernels {
  int64_t (*scratch_size)(const ThreadPool&, int64_t rows, int64_t in_features);
  void (*run)(const ThreadPool&, const Linear<T, W>&);
};

// Those of one recurrent operation with weights stored as W; see recurrent.h.
template <class T, class W, class Forward>
struct RecurrentInference {
  int64_t (*packed_size)(int64_t hidden_size);
  void (*pack)(const ThreadPool&, const W* weight, int64_t hidden_size, W* packed);
  int64_t (*scratch_size)(int64_t rows, int64_t hidden_size);
  void (*forward)(const ThreadPool&, const RecurrentBatch&, const Forward* directions, int count, int64_t first,
                  int64_t last, int64_t* scratch);
};
template <class T, class Forward, class Backward>
struct RecurrentKernels : RecurrentInference<T, T, Forward> {
  using Inference = RecurrentInference<T, T, Forward>;
  void (*backward)(const ThreadPool&, const RecurrentBatch&, const Backward* directions, int count, int64_t first,
                   int64_t last, const T** gates, T** states);
  // Of a single step: see cell.h.
  void (*cell_forward)(const ThreadPool&, const Forward&, const T* gates_h, int64_t rows);
  void (*cell_backward)(const ThreadPool&, const Backward&, int64_t rows);
};

// The kernels of a speller, and of its cells by themselves, with weights stored as W; see speller.h and cell.h.
template <class T, class W>
struct SpellerKernels {
  void (*pack)(const ThreadPool&, const W* weight, int64_t units, int64_t gates, int64_t in_features, W* packed);
  void (*spell)(const ThreadPool&, const Speller<T, W>&, const SpellerMemory<T>&, const SpellerRows<T>&,
                const SpellerGreedy*);
  void (*gru_step)(const ThreadPool&, const GruForward<T, W>&, const CellStep<T, W>&);
  void (*lstm_step)(const ThreadPool&, const LstmForward<T, W>&, const CellStep<T, W>&);
};

// With int8 weights and activations of eight bits; see int8_dot.h. A table of its own: VNNI changes it alone.
template <class T>
struct Int8Kernels {
  LinearKernels<T, Int8Dot> linear;
  RecurrentInference<T, Int8Dot, GruForward<T, Int8Dot>> gru;
  RecurrentInference<T, Int8Dot, LstmForward<T, Int8Dot>> lstm;
};

// Packed layouts depend on the ISA's vector width: pack and compute with the same table.
template <class T>
struct Kernels {
  int64_t (*linear_packed_size)(int64_t out_features, int64_t in_features);
  void (*linear_pack)(const ThreadPool&, const T* weight, bool transposed, int64_t out_features, int64_t in_features,
                      T* packed);
  LinearKernels<T, T> linear;
  LinearKernels<T, Bf16> linear_bf16;
  LinearKernels<T, int8_t> linear_int8;
  void (*transpose_matrix)(const ThreadPool&, const T* from, int64_t rows, int64_t columns, T* to);
  RecurrentKernels<T, GruForward<T>, GruBackward<T>> gru;
  RecurrentInference<T, Bf16, GruForward<T, Bf16>> gru_bf16;
  RecurrentInference<T, int8_t, GruForward<T, int8_t>> gru_int8;
  RecurrentKernels<T, LstmForward<T>, LstmBackward<T>> lstm;
  RecurrentInference<T, Bf16, LstmForward<T, Bf16>> lstm_bf16;
  RecurrentInference<T, int8_t, LstmForward<T, int8_t>> lstm_int8;
  void (*batch_norm_act_forward)(const ThreadPool&, const BatchNormActShape&, const BatchNormActForward<T>&, T* scale,
                                 T* piece_mean, T* piece_deviation, int64_t* piece_counts);
  void (*batch_norm_act_backward)(const ThreadPool&, const BatchNormActShape&, const BatchNormActBackward<T>&, T* scale,
                                  T* piece_sum, T* piece_dot);
  int64_t (*masked_conv2d_packed_size)(const MaskedConv2d<T>&);
  int64_t (*masked_conv2d_scratch_size)(const ThreadPool&, const MaskedConv2d<T>&);
  void (*masked_conv2d_pack)(const ThreadPool&, const MaskedConv2d<T>&, const T* weight, T* packed);
  void (*masked_conv2d)(const ThreadPool&, const MaskedConv2d<T>&);
  int64_t (*gates_packed_size)(int64_t units, int64_t gates, int64_t in_features);
  SpellerKernels<T, T> speller;
  SpellerKernels<T, Bf16> speller_bf16;
  SpellerKernels<T, int8_t> speller_int8;
  int64_t (*attention_scratch_size)(const ThreadPool&, int64_t longest_key, int64_t width);
  void (*attention)(const ThreadPool&, const Attention<T>&);
};

namespace {

// The table of functions that the including file compiles, with that file's ISA.
template <class Cell, class T = typename Cell::Value, class W = typename Cell::Weight>
constexpr RecurrentInference<T, W, typename Cell::Forward> make_recurrent_inference() {
  return {recurrent_packed_size<T, W, Cell::kGates>, recurrent_pack<T, W, Cell::kGates>, recurrent_scratch_size<Cell>,
          recurrent_forward<Cell>};
}
template <class Cell, class T = typename Cell::Value>
constexpr RecurrentKernels<T, typename Cell::Forward, typename Cell::Backward> make_recurrent_kernels() {
  return {make_recurrent_inference<Cell>(), recurrent_backward<Cell>, cell_forward<Cell>, cell_backward<Cell>};
}
template <class T, class W>
constexpr SpellerKernels<T, W> make_speller_kernels() {
  return {gates_pack<T, W>, spell<T, W>, cell_step<GruCell<T, W>>, cell_step<LstmCell<T, W>>};
}
template <class T>
constexpr Int8Kernels<T> make_int8_kernels() {
  return {{linear_dot_scratch_size<T>, linear_dot<T>},
          make_recurrent_inference<GruCell<T, Int8Dot>>(),
          make_recurrent_inference<LstmCell<T, Int8Dot>>()};
}
template <class T>
constexpr Kernels<T> make_kernels() {
  return {
      linear_packed_size<T>,
      linear_pack<T>,
      {linear_scratch_size<T>, linear<T, T>},
      {linear_scratch_size<T>, linear<T, Bf16>},
      {linear_scratch_size<T>, linear<T, int8_t>},
      transpose_matrix<T>,
      make_recurrent_kernels<GruCell<T>>(),
      make_recurrent_inference<GruCell<T, Bf16>>(),
      make_recurrent_inference<GruCell<T, int8_t>>(),
      make_recurrent_kernels<LstmCell<T>>(),
      make_recurrent_inference<LstmCell<T, Bf16>>(),
      make_recurrent_inference<LstmCell<T, int8_t>>(),
      batch_norm_act_forward<T>,
      batch_norm_act_backward<T>,
      masked_conv2d_packed_size<T>,
      masked_conv2d_scratch_size<T>,
      masked_conv2d_pack<T>,
      masked_conv2d<T>,
      gates_packed_size<T>,
      make_speller_kernels<T, T>(),
      make_speller_kernels<T, Bf16>(),
      make_speller_kernels<T, int8_t>(),
      attention_scratch_size<T>,
      attention<T>,
  };
}

}  // namespace

extern const Kernels<float> kScalarKernels, kAvx2Kernels, kAvx512Kernels;
extern const Kernels<double> kDoubleKernels;  // the scalar build only
extern const Int8Kernels<float> kScalarInt8Kernels, kAvx2Int8Kernels, kAvx512Int8Kernels, kAvx512VnniInt8Kernels;

// The table of the active ISA.
template <class T>
const Kernels<T>& kernels();
const Int8Kernels<float>& int8_kernels();

}  // namespace asrkern::cpu

// The signature of every operation of asrkern. asrkern/ops/<operation>.py says what the arguments mean.
#include <torch/csrc/stable/library.h>

#include <string>

#include "csrc/ops/boxed.h"
#include "kernels/common/cpu/isa.h"
#include "kernels/ctc/context_arrays.h"
#include "kernels/ctc/ctc_options.h"

namespace {

std::string cpu_isa() { return asrkern::cpu::isa_name(asrkern::cpu::active_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY(asrkern, m) {
  m.def(
      "gru(Tensor input, Tensor? lengths, Tensor? batch_sizes, Tensor? h0,"
      " Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh,"
      " Tensor? weight_ih_reverse, Tensor? weight_hh_reverse, Tensor? bias_ih_reverse, Tensor? bias_hh_reverse,"
      " bool batch_first, bool save_reserve) -> (Tensor output, Tensor h_n, Tensor reserve)");
  m.def(
      "gru_backward(Tensor grad_output, Tensor grad_h_n, Tensor input, Tensor? lengths, Tensor? batch_sizes, Tensor? "
      "h0,"
      " Tensor weight_ih, Tensor weight_hh, Tensor? weight_ih_reverse, Tensor? weight_hh_reverse,"
      " Tensor output, Tensor reserve, bool batch_first)"
      " -> (Tensor grad_input, Tensor grad_h0, Tensor grad_weight_ih, Tensor grad_weight_hh, Tensor grad_bias_ih,"
      " Tensor grad_bias_hh)");
  // Up to how many rows the CUDA kernel is taken on a device; 0 for never.
  m.def("gru_cuda_rows(int device, int value_bytes, int hidden_size, int directions, bool backward) -> int");
  m.def(
      "lstm(Tensor input, Tensor? lengths, Tensor? batch_sizes, Tensor? h0, Tensor? c0,"
      " Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh,"
      " Tensor? weight_ih_reverse, Tensor? weight_hh_reverse, Tensor? bias_ih_reverse, Tensor? bias_hh_reverse,"
      " bool batch_first, bool save_reserve) -> (Tensor output, Tensor h_n, Tensor c_n, Tensor reserve)");
  m.def(
      "lstm_backward(Tensor grad_output, Tensor grad_h_n, Tensor grad_c_n, Tensor input, Tensor? lengths,"
      " Tensor? batch_sizes, Tensor? h0, Tensor? c0,"
      " Tensor weight_ih, Tensor weight_hh, Tensor? weight_ih_reverse, Tensor? weight_hh_reverse,"
      " Tensor output, Tensor reserve, bool batch_first)"
      " -> (Tensor grad_input, Tensor grad_h0, Tensor grad_c0, Tensor grad_weight_ih, Tensor grad_weight_hh,"
      " Tensor grad_bias_ih, Tensor grad_bias_hh)");
  m.def("gru_pack(Tensor weight_hh, bool int8_activations=False) -> Tensor");
  m.def(
      "gru_prepacked(Tensor input, Tensor? lengths, Tensor? batch_sizes, Tensor? h0,"
      " Tensor weight_ih, Tensor? scale_ih, Tensor packed_hh, Tensor? scale_hh, Tensor? bias_ih, Tensor? bias_hh,"
      " Tensor? weight_ih_reverse, Tensor? scale_ih_reverse, Tensor? packed_hh_reverse, Tensor? scale_hh_reverse,"
      " Tensor? bias_ih_reverse, Tensor? bias_hh_reverse, bool batch_first, bool int8_activations=False)"
      " -> (Tensor output, Tensor h_n)");
  m.def("lstm_pack(Tensor weight_hh, bool int8_activations=False) -> Tensor");
  m.def(
      "lstm_prepacked(Tensor input, Tensor? lengths, Tensor? batch_sizes, Tensor? h0, Tensor? c0,"
      " Tensor weight_ih, Tensor? scale_ih, Tensor packed_hh, Tensor? scale_hh, Tensor? bias_ih, Tensor? bias_hh,"
      " Tensor? weight_ih_reverse, Tensor? scale_ih_reverse, Tensor? packed_hh_reverse, Tensor? scale_hh_reverse,"
      " Tensor? bias_ih_reverse, Tensor? bias_hh_reverse, bool batch_first, bool int8_activations=False)"
      " -> (Tensor output, Tensor h_n, Tensor c_n)");
  m.def(
      "gru_cell(Tensor input, Tensor h, Tensor weight_ih, Tensor? scale_ih, Tensor weight_hh, Tensor? scale_hh,"
      " Tensor? bias_ih, Tensor? bias_hh, bool save_reserve) -> (Tensor h_next, Tensor reserve)");
  m.def(
      "gru_cell_backward(Tensor grad_h, Tensor h, Tensor reserve)"
      " -> (Tensor grad_gates_x, Tensor grad_gates_h, Tensor grad_h_before)");
  m.def(
      "lstm_cell(Tensor input, Tensor h, Tensor c, Tensor weight_ih, Tensor? scale_ih, Tensor weight_hh,"
      " Tensor? scale_hh, Tensor? bias_ih, Tensor? bias_hh, bool save_reserve)"
      " -> (Tensor h_next, Tensor c_next, Tensor reserve)");
  m.def(
      "lstm_cell_backward(Tensor grad_h, Tensor grad_c, Tensor c, Tensor reserve)"
      " -> (Tensor grad_gates, Tensor grad_c_before)");
  m.def(
      "gru_cell_prepacked(Tensor input, Tensor h, Tensor packed_ih, Tensor? scale_ih, Tensor packed_hh,"
      " Tensor? scale_hh, Tensor? bias_ih, Tensor? bias_hh, bool save_reserve=False)"
      " -> (Tensor h_next, Tensor reserve)");
  m.def(
      "lstm_cell_prepacked(Tensor input, Tensor h, Tensor c, Tensor packed_ih, Tensor? scale_ih, Tensor packed_hh,"
      " Tensor? scale_hh, Tensor? bias_ih, Tensor? bias_hh, bool save_reserve=False)"
      " -> (Tensor h_next, Tensor c_next, Tensor reserve)");
  m.def("linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "linear_quantized(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, bool int8_activations=False)"
      " -> Tensor");
  m.def(
      "batch_norm_act(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var,"
      " Tensor? lengths, str layout, bool training, bool count_padding, float eps, float min, float max)"
      " -> (Tensor output, Tensor mean, Tensor var, Tensor count)");
  m.def(
      "batch_norm_act_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor? bias, Tensor mean, Tensor var,"
      " Tensor? lengths, str layout, bool training, bool count_padding, float eps, float min, float max)"
      " -> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)");
  m.def(
      "masked_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? scale, Tensor? shift, Tensor? lengths,"
      " Tensor? output_lengths, int[] stride, int[] padding, float min, float max, int[] pool=[1, 1], int groups=1)"
      " -> Tensor");
  m.def(
      "masked_conv2d_backward_input(Tensor grad_output, Tensor input, Tensor weight, Tensor? lengths,"
      " Tensor? output_lengths, int[] stride, int[] padding) -> Tensor");
  m.def(
      "masked_conv2d_backward_weight(Tensor grad_output, Tensor input, Tensor weight, Tensor? lengths,"
      " Tensor? output_lengths, int[] stride, int[] padding) -> Tensor");
  m.def(
      "masked_conv2d_batch_norm_act(Tensor input, Tensor weight, Tensor? bias, Tensor? norm_weight, Tensor? norm_bias,"
      " Tensor? lengths, Tensor? output_lengths, int[] stride, int[] padding, bool count_padding, float eps, float min,"
      " float max) -> (Tensor output, Tensor convolved, Tensor mean, Tensor var, Tensor count)");
  m.def(("ctc_beam_search(Tensor log_probs, Tensor? lengths, Tensor token_kinds,"
         " Tensor[] language_model, int lm_order, int lm_bos, int lm_eos, Tensor? lm_tokens,"
         " Tensor[] lexicon, Tensor[] hotwords, Tensor? texts, " +
         asrkern::schema_of<asrkern::ContextNumbers>() + ", " + asrkern::schema_of<asrkern::CtcOptions>() +
         ", int num_threads)"
         " -> (Tensor tokens, Tensor timesteps, Tensor words, Tensor confidences, Tensor token_lengths,"
         " Tensor scores, Tensor am_scores, Tensor errors)")
            .c_str());
  m.def("speller_pack(Tensor weight, int gates) -> Tensor");
  m.def(
      "speller_step(Tensor tokens, Tensor states, Tensor context, Tensor? previous, Tensor keys, Tensor values,"
      " Tensor lengths, bool gru, Tensor embedding, Tensor[] cells, str scores, int heads, float scale, bool smoothing,"
      " Tensor[] attention, int features_begin, Tensor[] outputs, int[] widths, bool feeds_context)"
      " -> (Tensor logits, Tensor weights, Tensor states, Tensor context)");
  m.def(
      "speller_greedy(Tensor tokens, Tensor states, Tensor context, Tensor keys, Tensor values, Tensor lengths,"
      " bool gru, Tensor embedding, Tensor[] cells, str scores, int heads, float scale, bool smoothing,"
      " Tensor[] attention, int features_begin, Tensor[] outputs, int[] widths, bool feeds_context, int eos,"
      " int max_length) -> (Tensor tokens, Tensor counts, Tensor log_probs)");
  m.def(
      "speller_beam(Tensor tokens, Tensor states, Tensor context, Tensor keys, Tensor values, Tensor lengths,"
      " bool gru, Tensor embedding, Tensor[] cells, str scores, int heads, float scale, bool smoothing,"
      " Tensor[] attention, int features_begin, Tensor[] outputs, int[] widths, bool feeds_context, int eos,"
      " int max_length, int beam_width) -> (Tensor tokens, Tensor counts, Tensor log_probs, Tensor coverage)");
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor query_lengths, Tensor key_lengths, Tensor? bias,"
      " int heads, int key_heads, bool causal, float scale) -> Tensor");
  m.def("linear_heads(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, int heads, bool transposed) -> Tensor");
  // Of a tensor's values as bytes, in the order of its elements.
  m.def("checksum(Tensor tensor) -> int");
  m.def("cpu_isa() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(asrkern, CompositeExplicitAutograd, m) { m.impl("cpu_isa", TORCH_BOX(&cpu_isa)); }

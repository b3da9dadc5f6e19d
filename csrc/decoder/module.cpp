// asrkern._decoder: decoders for Python. No torch.
#include "csrc/decoder/modules.h"
#include "csrc/decoder/ngram_model.h"

PYBIND11_MODULE(_decoder, m) {
  m.doc() = "Decoders of asrkern in C++; use them through asrkern.decoder.";
  asrkern::bind_greedy(m);
  asrkern::bind_ngram(m);
  asrkern::bind_tries(m);
  asrkern::bind_hypotheses(m);
  asrkern::bind_ctc_beam(m);
  asrkern::bind_align(m);
}

#include <algorithm>

#include "csrc/ops/common.h"
#include "kernels/common/checksum.h"

namespace asrkern {
namespace {

// Bytes that one task reads. Pieces do not depend on the number of threads, so neither does the result.
constexpr int64_t kPiece = int64_t(1) << 18;

int64_t checksum_of(const Tensor& tensor) {
  const Tensor values = dense(tensor);
  const char* from = static_cast<const char*>(values.const_data_ptr());
  const int64_t bytes = values.numel() * int64_t(values.element_size());
  std::vector<uint64_t> pieces(size_t((bytes + kPiece - 1) / kPiece));
  cpu::parallel_for(torch_threads(), int64_t(pieces.size()), [&](int64_t i) {
    pieces[i] = checksum(from + i * kPiece, size_t(std::min(kPiece, bytes - i * kPiece)), uint64_t(i));
  });
  return int64_t(checksum(pieces.data(), pieces.size() * sizeof pieces[0]));
}

}  // namespace
}  // namespace asrkern

STABLE_TORCH_LIBRARY_IMPL(asrkern, CPU, m) { asrkern::implement<"checksum", &asrkern::checksum_of>(m); }

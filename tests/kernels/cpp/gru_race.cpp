// A GRU layer forward and backward in threads, for ThreadSanitizer: do the epochs order every exchange?
#include <cstdio>
#include <random>

#include "tests/kernels/cpp/gru_host.cpp"

int main() {
  const int hidden_size = 17, directions = 2, steps = 6;
  const std::vector<int32_t> lengths = {6, 1, 0, 3, 6, 5, 2, 4, 6, 6, 1, 2};
  const int rows = int(lengths.size()), frames = rows * steps;
  const Shape shape = {rows, steps, 0, 0, hidden_size, directions, 1, 132, 227 << 10, -1, 0, frames};
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  std::vector<std::vector<float>> memory;
  const auto values = [&](size_t count) {
    memory.emplace_back(count);
    for (float& value : memory.back()) value = normal(random);
    return static_cast<void*>(memory.back().data());
  };
  const size_t of_states = size_t(directions) * rows * hidden_size,
               of_output = size_t(directions) * frames * hidden_size;
  void* const weights[] = {values(3 * hidden_size * hidden_size), values(3 * hidden_size * hidden_size)};
  void *const output = values(of_output), *const h_n = values(of_states), *const reserve = values(4 * of_output);
  void* const of_forward[] = {
      values(3 * of_output), weights[0], weights[1], nullptr, nullptr, nullptr, nullptr, nullptr, output, h_n, reserve};
  gru_forward(&shape, lengths.data(), of_forward);
  void* const of_backward[] = {weights[0],
                               weights[1],
                               nullptr,
                               output,
                               reserve,
                               values(of_output),
                               h_n,
                               values(of_states),
                               values(3 * of_output),
                               values(3 * of_output),
                               values(of_output)};
  gru_backward(&shape, lengths.data(), of_backward);
  std::puts("done");
}

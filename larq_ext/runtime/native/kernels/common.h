// What every kernel file begins with.
#pragma once

#include <algorithm>
#include <cfloat>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../kernel.h"

#define LARQ_EXT_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define LARQ_EXT_UNROLL _Pragma("clang loop unroll(full)")
#define LARQ_EXT_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define LARQ_EXT_UNROLL _Pragma("GCC unroll 16")
#define LARQ_EXT_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif

namespace larq_ext {

// What is negative enough to be -1. Denormal numbers count as zero, as they do in Larq Compute
// Engine and in Keras, whatever the CPU is told to do with them.
constexpr float kNegative = -FLT_MIN;

// Calls `loop(iterations)` until `seconds` have passed; returns iterations a second.
template <class Loop>
double IterationsPerSecond(double seconds, Loop loop) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kBatch = 100000;
  double best = 0;
  const auto start = Clock::now();
  auto last = start;
  do {
    loop(kBatch);
    const auto now = Clock::now();
    const double rate = kBatch / std::chrono::duration<double>(now - last).count();
    best = rate > best ? rate : best;  // the limit is what was reached undisturbed
    last = now;
  } while (std::chrono::duration<double>(last - start).count() < seconds);
  return best;
}

}  // namespace larq_ext

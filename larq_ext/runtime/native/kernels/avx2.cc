// AVX2: 32 output channels a vector, counted by tables.
#if defined(__x86_64__)
#include <immintrin.h>

#include "common.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#pragma GCC target("avx2")
#endif

namespace larq_ext {
namespace avx2 {

constexpr int kLanes = 8;
constexpr int kBlock = 32;
#define LARQ_EXT_TILE_BLOCKS 2
constexpr int kTileBlocks = LARQ_EXT_TILE_BLOCKS;
constexpr int kTilePixels = 4;

typedef float Floats __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
LARQ_EXT_INLINE uint32_t NegativeLanes(Floats y) {
  return static_cast<uint32_t>(_mm256_movemask_ps(
      _mm256_cmp_ps(reinterpret_cast<__m256>(y), _mm256_set1_ps(kNegative), _CMP_LE_OQ)));
}
LARQ_EXT_INLINE uint32_t GreaterLanes(Ints x, Ints limit) {
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(
      _mm256_cmpgt_epi32(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(limit)))));
}

#include "vectors.h"

typedef uint8_t Bytes __attribute__((vector_size(32)));
LARQ_EXT_INLINE Bytes Table(const uint8_t* from) {
  return reinterpret_cast<Bytes>(
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(from))));
}
LARQ_EXT_INLINE Bytes Lookup(Bytes table, Bytes indices) {
  return reinterpret_cast<Bytes>(_mm256_shuffle_epi8(reinterpret_cast<__m256i>(table),
                                                     reinterpret_cast<__m256i>(indices)));
}

#include "nibbles_x86.h"
#include "lookup.h"
#include "driver.h"

// VPSHUFB and VPADDB on registers: 32 output channels, four products each.
double Peak(double seconds) {
  const double rate = IterationsPerSecond(seconds, [](int64_t iterations) {
    __m256i sums[8];
    for (__m256i& sum : sums) sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < iterations; ++i) {
      for (__m256i& sum : sums) {
        asm volatile(
            "vpshufb %%ymm13, %%ymm14, %%ymm15\n\t"
            "vpaddb %%ymm15, %0, %0"
            : "+x"(sum)
            :
            : "xmm15");
      }
    }
  });
  return rate * 8 * 128;
}

bool Supported() { return __builtin_cpu_supports("avx2"); }

}  // namespace avx2

extern const Kernel kAvx2Kernel;
const Kernel kAvx2Kernel = {
    "avx2",
    avx2::Supported,
    avx2::PrepareLookups,
    avx2::FillLookups,
    avx2::Run,
    avx2::kTileChannels,
    UINT16_MAX,
    avx2::PackFloat,
    avx2::PackInt8,
    avx2::FinishRows,
    avx2::Peak,
};

}  // namespace larq_ext

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

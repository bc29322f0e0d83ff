// AVX-512 without VPOPCNTDQ: 64 output channels a vector, counted by tables.
#if defined(__x86_64__)
#include "common.h"
#if defined(LARQ_EXT_SIMDE)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#else
#include <immintrin.h>
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#if !defined(LARQ_EXT_SIMDE)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#endif
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#if !defined(LARQ_EXT_SIMDE)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#endif

namespace larq_ext {
namespace avx512 {

constexpr int kLanes = 16;
constexpr int kBlock = 64;
#define LARQ_EXT_TILE_BLOCKS 4
constexpr int kTileBlocks = LARQ_EXT_TILE_BLOCKS;
constexpr int kTilePixels = 4;

#include "lanes_avx512.h"
#include "vectors.h"

typedef uint8_t Bytes __attribute__((vector_size(64)));
LARQ_EXT_INLINE Bytes Table(const uint8_t* from) {
  return reinterpret_cast<Bytes>(_mm512_broadcast_i32x4(
      _mm_load_si128(reinterpret_cast<const __m128i*>(from))));
}
LARQ_EXT_INLINE Bytes Lookup(Bytes table, Bytes indices) {
  return reinterpret_cast<Bytes>(_mm512_shuffle_epi8(reinterpret_cast<__m512i>(table),
                                                     reinterpret_cast<__m512i>(indices)));
}

#include "nibbles_x86.h"
#include "lookup.h"
#include "driver.h"

// VPSHUFB and VPADDB on registers: 64 output channels, four products each.
double Peak(double seconds) {
#if defined(LARQ_EXT_SIMDE)
  return 0 * seconds;
#else
  const double rate = IterationsPerSecond(seconds, [](int64_t iterations) {
    __m512i sums[12];
    for (__m512i& sum : sums) sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < iterations; ++i) {
      for (__m512i& sum : sums) {
        asm volatile(
            "vpshufb %%zmm30, %%zmm31, %%zmm29\n\t"
            "vpaddb %%zmm29, %0, %0"
            : "+v"(sum)
            :
            : "xmm29");
      }
    }
  });
  return rate * 12 * 256;
#endif
}

bool Supported() {
#if defined(LARQ_EXT_SIMDE)
  return true;
#else
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
}

}  // namespace avx512

extern const Kernel kAvx512Kernel;
const Kernel kAvx512Kernel = {
    "avx512",
    avx512::Supported,
    avx512::PrepareLookups,
    avx512::FillLookups,
    avx512::Run,
    avx512::kTileChannels,
    UINT16_MAX,
    avx512::PackFloat,
    avx512::PackInt8,
    avx512::FinishRows,
    avx512::Peak,
};

}  // namespace larq_ext

#if defined(__clang__)
#if !defined(LARQ_EXT_SIMDE)
#pragma clang attribute pop
#endif
#else
#pragma GCC pop_options
#endif
#endif

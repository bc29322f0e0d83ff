// NEON: 16 output channels a vector, counted by tables.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "common.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace larq_ext {
namespace neon {

constexpr int kLanes = 4;
constexpr int kBlock = 16;
#define LARQ_EXT_TILE_BLOCKS 4
constexpr int kTileBlocks = LARQ_EXT_TILE_BLOCKS;
constexpr int kTilePixels = 4;

typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
LARQ_EXT_INLINE uint32_t OneBitEach(uint32x4_t lanes) {
  const uint32x4_t weights = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(lanes, weights));
}
LARQ_EXT_INLINE uint32_t NegativeLanes(Floats y) {
  return OneBitEach(vcleq_f32(reinterpret_cast<float32x4_t>(y), vdupq_n_f32(kNegative)));
}
LARQ_EXT_INLINE uint32_t GreaterLanes(Ints x, Ints limit) {
  return OneBitEach(
      vcgtq_s32(reinterpret_cast<int32x4_t>(x), reinterpret_cast<int32x4_t>(limit)));
}

#include "vectors.h"

typedef uint8_t Bytes __attribute__((vector_size(16)));
LARQ_EXT_INLINE Bytes Table(const uint8_t* from) {
  return reinterpret_cast<Bytes>(vld1q_u8(from));
}
LARQ_EXT_INLINE Bytes Lookup(Bytes table, Bytes indices) {
  return reinterpret_cast<Bytes>(
      vqtbl1q_u8(reinterpret_cast<uint8x16_t>(table), reinterpret_cast<uint8x16_t>(indices)));
}
LARQ_EXT_INLINE void ExpandNibbles(const uint8_t* bits, uint8_t* cells) {
  const uint8x16_t bytes = vld1q_u8(bits);
  const uint8x16_t low = vshlq_n_u8(bytes, 4);
  const uint8x16_t high = vandq_u8(bytes, vdupq_n_u8(0xf0));
  vst1q_u8(cells, vzip1q_u8(low, high));
  vst1q_u8(cells + 16, vzip2q_u8(low, high));
}

#include "lookup.h"
#include "driver.h"

// TBL and ADD on registers: 16 output channels, four products each.
double Peak(double seconds) {
  const double rate = IterationsPerSecond(seconds, [](int64_t iterations) {
    uint8x16_t sums[12];
    for (uint8x16_t& sum : sums) sum = vdupq_n_u8(0);
    for (int64_t i = 0; i < iterations; ++i) {
      for (uint8x16_t& sum : sums) {
        asm volatile(
            "tbl v29.16b, {v30.16b}, v31.16b\n\t"
            "add %0.16b, %0.16b, v29.16b"
            : "+w"(sum)
            :
            : "v29");
      }
    }
  });
  return rate * 12 * 64;
}

bool Supported() { return true; }  // part of every 64-bit ARM CPU

}  // namespace neon

extern const Kernel kNeonKernel;
const Kernel kNeonKernel = {
    "neon",
    neon::Supported,
    neon::PrepareLookups,
    neon::FillLookups,
    neon::Run,
    neon::kTileChannels,
    UINT16_MAX,
    neon::PackFloat,
    neon::PackInt8,
    neon::FinishRows,
    neon::Peak,
};

}  // namespace larq_ext
#endif

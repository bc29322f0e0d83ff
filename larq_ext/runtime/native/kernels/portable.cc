// Plain C++ for any CPU, and the judge of the others in tests.
#include "common.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace larq_ext {
namespace portable {

constexpr int kLanes = 4;
constexpr int kTileBlocks = 2;
constexpr int kTilePixels = 2;

typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
LARQ_EXT_INLINE uint32_t OneBitEach(Ints lanes) {
  return (lanes[0] & 1) | (lanes[1] & 2) | (lanes[2] & 4) | (lanes[3] & 8);
}
LARQ_EXT_INLINE uint32_t NegativeLanes(Floats y) { return OneBitEach(y <= kNegative); }
LARQ_EXT_INLINE uint32_t GreaterLanes(Ints x, Ints limit) { return OneBitEach(x > limit); }

#include "vectors.h"

// 16 lanes, as four vectors that any compiler can place.
typedef uint32_t Quarter __attribute__((vector_size(16)));
struct Words {
  Quarter quarters[4] = {};
};
LARQ_EXT_INLINE Words Broadcast(const uint8_t* from) {
  uint32_t word;
  __builtin_memcpy(&word, from, sizeof word);
  Words words;
  for (Quarter& quarter : words.quarters) quarter = Quarter{} + word;
  return words;
}
LARQ_EXT_INLINE Words LoadWords(const uint8_t* from) { return Load<Words>(from); }
LARQ_EXT_INLINE void StoreWords(int32_t* to, const Words& words) { Store(to, words); }

#define LARQ_EXT_BY_QUARTER(expression)      \
  Words result;                              \
  for (int i = 0; i < 4; ++i) {              \
    result.quarters[i] = expression;         \
  }                                          \
  return result

LARQ_EXT_INLINE Words Add(const Words& a, const Words& b) {
  LARQ_EXT_BY_QUARTER(a.quarters[i] + b.quarters[i]);
}
LARQ_EXT_INLINE Quarter CountQuarter(Quarter x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  x += x >> 8;
  return (x + (x >> 16)) & 0x3fu;
}
LARQ_EXT_INLINE Words Count(const Words& words) {
  LARQ_EXT_BY_QUARTER(CountQuarter(words.quarters[i]));
}

LARQ_EXT_INLINE void AddPair(const Words& a, const Words& aa, const Words& b, const Words& bb,
                             Words* ones, Words* twos) {
  for (int i = 0; i < 4; ++i) {
    const Quarter old = ones->quarters[i];
    const Quarter product = a.quarters[i] ^ b.quarters[i];
    const Quarter next = old ^ aa.quarters[i] ^ bb.quarters[i];
    // Where `old` and `product` agree they are the majority of the three; elsewhere the third is,
    // and it is the opposite of `next`.
    twos->quarters[i] += CountQuarter(old ^ ((old ^ product) & ~(old ^ next)));
    ones->quarters[i] = next;
  }
}

#include "pairs.h"
#include "driver.h"

double Peak(double) { return 0; }  // there is no single instruction to compare with

bool Supported() { return true; }

}  // namespace portable

extern const Kernel kPortableKernel;
const Kernel kPortableKernel = {
    "portable",
    portable::Supported,
    portable::PreparePairs,
    portable::FillPairs,
    portable::Run,
    portable::kTileChannels,
    INT32_MAX / 2,
    portable::PackFloat,
    portable::PackInt8,
    portable::FinishRows,
    portable::Peak,
};

}  // namespace larq_ext

// AVX-512 with VPOPCNTDQ: 16 output channels a vector, counted by the CPU itself.
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
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq"))), \
    apply_to = function)
#endif
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#if !defined(LARQ_EXT_SIMDE)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")
#endif
#endif

namespace larq_ext {
namespace avx512vpopcnt {

constexpr int kLanes = 16;
constexpr int kTileBlocks = 2;
constexpr int kTilePixels = 6;

#include "lanes_avx512.h"
#include "vectors.h"

using Words = __m512i;
LARQ_EXT_INLINE Words Broadcast(const uint8_t* from) {
  int32_t word;
  __builtin_memcpy(&word, from, sizeof word);
  return _mm512_set1_epi32(word);
}
LARQ_EXT_INLINE Words LoadWords(const uint8_t* from) { return _mm512_loadu_si512(from); }
LARQ_EXT_INLINE void StoreWords(int32_t* to, Words words) { _mm512_storeu_si512(to, words); }
LARQ_EXT_INLINE Words Add(Words a, Words b) { return _mm512_add_epi32(a, b); }
LARQ_EXT_INLINE Words Count(Words words) { return _mm512_popcnt_epi32(words); }

// The table of a function of three bits, as VPTERNLOG wants it.
template <class Function>
constexpr int TruthTable(Function function) {
  int table = 0;
  for (int i = 0; i < 8; ++i) table |= function(i >> 2 & 1, i >> 1 & 1, i & 1) << i;
  return table;
}
constexpr int XorOfThree(int a, int b, int c) { return a ^ b ^ c; }
// Where ones and product agree they are the majority of the three; elsewhere the third is, and it
// is the opposite of next = ones ^ product ^ third.
constexpr int CarryOf(int ones, int product, int next) {
  return ones == product ? ones : 1 - next;
}

#if defined(LARQ_EXT_SIMDE)
// SIMDe 0.7 has no VPTERNLOG; the table is applied bit by bit.
template <int kTable>
Words Ternary(Words a, Words b, Words c) {
  Words result = _mm512_setzero_si512();
  const Words all = _mm512_set1_epi32(-1);
  for (int i = 0; i < 8; ++i) {
    if ((kTable >> i & 1) == 0) continue;
    Words term = i & 4 ? a : _mm512_xor_si512(a, all);
    term = _mm512_and_si512(term, i & 2 ? b : _mm512_xor_si512(b, all));
    term = _mm512_and_si512(term, i & 1 ? c : _mm512_xor_si512(c, all));
    result = _mm512_or_si512(result, term);
  }
  return result;
}
LARQ_EXT_INLINE void AddPair(Words a, Words aa, Words b, Words bb, Words* ones, Words* twos) {
  const Words next = Ternary<TruthTable(XorOfThree)>(*ones, aa, bb);
  const Words carry = Ternary<TruthTable(CarryOf)>(*ones, _mm512_xor_si512(a, b), next);
  *twos = Add(*twos, Count(carry));
  *ones = next;
}
#else
// Written out, because with 12 pairs of sums and 8 operands every register is taken, and compilers
// that schedule the steps themselves spill sums to memory. The copy costs no execution unit.
LARQ_EXT_INLINE void AddPair(Words a, Words aa, Words b, Words bb, Words* ones, Words* twos) {
  Words carry, product;
  asm("vmovdqa64 %[ones], %[carry]\n\t"
      "vpternlogd %[sum_table], %[bb], %[aa], %[ones]\n\t"
      "vpxord %[b], %[a], %[product]\n\t"
      "vpternlogd %[carry_table], %[ones], %[product], %[carry]\n\t"
      "vpopcntd %[carry], %[carry]\n\t"
      "vpaddd %[carry], %[twos], %[twos]"
      : [ones] "+&v"(*ones), [twos] "+v"(*twos), [carry] "=&v"(carry), [product] "=&v"(product)
      : [a] "v"(a), [aa] "v"(aa), [b] "v"(b), [bb] "v"(bb),
        [sum_table] "n"(TruthTable(XorOfThree)), [carry_table] "n"(TruthTable(CarryOf)));
}
#endif

#include "pairs.h"
#include "driver.h"

// XOR, VPOPCNTD and VPADDD on registers: one product of 512 bits for three operations. The kernel
// needs five for two, so it can exceed this.
double Peak(double seconds) {
#if defined(LARQ_EXT_SIMDE)
  return 0 * seconds;
#else
  const double rate = IterationsPerSecond(seconds, [](int64_t iterations) {
    Words sums[12];
    for (Words& sum : sums) sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < iterations; ++i) {
      for (Words& sum : sums) {
        asm volatile(
            "vpxord %%zmm30, %%zmm31, %%zmm29\n\t"
            "vpopcntd %%zmm29, %%zmm29\n\t"
            "vpaddd %%zmm29, %0, %0"
            : "+v"(sum)
            :
            : "xmm29");
      }
    }
  });
  return rate * 12 * 512;
#endif
}

bool Supported() {
#if defined(LARQ_EXT_SIMDE)
  return true;
#else
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vpopcntdq");
#endif
}

}  // namespace avx512vpopcnt

extern const Kernel kAvx512VpopcntKernel;
const Kernel kAvx512VpopcntKernel = {
    "avx512vpopcnt",
    avx512vpopcnt::Supported,
    avx512vpopcnt::PreparePairs,
    avx512vpopcnt::FillPairs,
    avx512vpopcnt::Run,
    avx512vpopcnt::kTileChannels,
    INT32_MAX / 2,
    avx512vpopcnt::PackFloat,
    avx512vpopcnt::PackInt8,
    avx512vpopcnt::FinishRows,
    avx512vpopcnt::Peak,
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

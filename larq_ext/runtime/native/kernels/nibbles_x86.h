// What lookup.h wants of a kernel for x86; included within the kernel's namespace before it.

LARQ_EXT_INLINE void ExpandNibbles(const uint8_t* bits, uint8_t* cells) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits));
  const __m128i mask = _mm_set1_epi8(static_cast<char>(0xf0));
  const __m128i low = _mm_and_si128(_mm_slli_epi16(bytes, 4), mask);
  const __m128i high = _mm_and_si128(bytes, mask);
  __m128i* to = reinterpret_cast<__m128i*>(cells);
  _mm_storeu_si128(to, _mm_unpacklo_epi8(low, high));
  _mm_storeu_si128(to + 1, _mm_unpackhi_epi8(low, high));
}

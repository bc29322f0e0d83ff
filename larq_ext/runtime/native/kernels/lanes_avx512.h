// What vectors.h wants of a kernel for AVX-512; included within the kernel's namespace before it.

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
LARQ_EXT_INLINE uint32_t NegativeLanes(Floats y) {
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(y), _mm512_set1_ps(kNegative), _CMP_LE_OQ);
}
LARQ_EXT_INLINE uint32_t GreaterLanes(Ints x, Ints limit) {
  return _mm512_cmpgt_epi32_mask(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(limit));
}

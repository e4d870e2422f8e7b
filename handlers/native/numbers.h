// Numbers in bfloat16 and float32, sixteen at a time.

#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 16  // numbers of a register in float32; columns of a weight tile, tokens of a KV block

typedef uint16_t bf16;

static inline float to_float(bf16 value) {
    union { uint32_t bits; float number; } u = {(uint32_t)value << 16};
    return u.number;
}

static inline __m512 widened(const bf16 *numbers) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)numbers)), 16);
}

static inline bf16 to_bf16(float value) {
    return (bf16)_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(value)), 0);
}

static inline void store_bf16(bf16 *target, __m512 values) {
    _mm256_storeu_si256((__m256i *)target, (__m256i)_mm512_cvtneps_pbh(values));
}

static inline __m512bh broadcast_pair(const bf16 *pair) {
    int bits;
    memcpy(&bits, pair, 4);
    return (__m512bh)_mm512_set1_epi32(bits);
}

// e to the x for x <= 0: 2 to the integer part times a polynomial of the rest.
static inline __m512 exp_of(__m512 x) {
    x = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-100.0f)), _mm512_set1_ps(1.44269504f));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.3333558e-3f);
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(9.6181291e-3f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(5.5504109e-2f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(2.4022651e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(6.9314718e-1f));
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

static inline __m512 silu(__m512 x) {
    __m512 magnitude = _mm512_abs_ps(x);
    __m512 decay = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), magnitude));           // e^-|x|, which never overflows
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    __m512 numerator = _mm512_mask_mul_ps(x, negative, x, decay);                   // x or x e^x
    return _mm512_div_ps(numerator, _mm512_add_ps(_mm512_set1_ps(1.0f), decay));
}

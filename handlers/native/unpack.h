// Weights as they lie in memory, and how 16 columns of them become tiles of bfloat16: (inputs / 2) rows of 16 columns of pairs of inputs.

#pragma once

#include "numbers.h"

enum { PLAIN, CODES_4BIT, CODES_INT8, CODES_FP8 };

#define SLICE 32  // inputs that are unpacked together: what one tile register holds

// A weight, in tiles of 16 columns, whole tiles one after the other. Its codes, by kind:
//   PLAIN       bfloat16: [inputs / 2][16 columns][pair of inputs]
//   CODES_INT8  and CODES_FP8 (E4M3): [inputs][16 columns], a byte each
//   CODES_4BIT  [inputs / 8][16 columns][pair of inputs] words of 16 bits: nibble n, from the lowest, belongs to the n-th pair of the eight
// Scales, and minima where there are any: [columns / 16][inputs / group][16 columns] in float16, as multiples of a unit of the matrix's own.
// A weight is the value of its code * scale + minimum. The values of all kinds of codes are exact in bfloat16.
typedef struct {
    int64_t columns, depth, kind, group;  // group: inputs that share a scale; 8, 16, or a multiple of 32; depth if PLAIN
    float scale_unit, minimum_unit;
    const uint8_t *codes;
    const uint16_t *scales, *minima;      // NULL if PLAIN; minima NULL: none
    const bf16 *table;                    // (32), the values of 4-bit codes, twice
    const int64_t *order;                 // (depth), which input each of its own is; NULL: as they stand
} Matrix;

static const int64_t slice_bytes[] = {[PLAIN] = 1024, [CODES_4BIT] = 256, [CODES_INT8] = 512, [CODES_FP8] = 512};

// One tile of columns.
typedef struct {
    const Matrix *matrix;
    const uint8_t *codes;
    const uint16_t *scales, *minima;
} Source;

static inline Source source_of(const Matrix *matrix, int64_t tile) {
    int64_t factors = tile * (matrix->depth / matrix->group) * BLOCK;
    return (Source){
        .matrix = matrix,
        .codes = matrix->codes + tile * (matrix->depth / SLICE) * slice_bytes[matrix->kind],
        .scales = matrix->scales + factors,
        .minima = matrix->minima ? matrix->minima + factors : NULL,
    };
}

static inline const uint8_t *codes_at(const Source *source, int64_t k) {
    return source->codes + k / SLICE * slice_bytes[source->matrix->kind];
}

static inline __m512 factors_of(const uint16_t *factors, int64_t group, float unit) {
    __m256i halves = _mm256_loadu_si256((const __m256i *)(factors + group * BLOCK));
    return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(unit));
}

// Two inputs of 16 columns, whose values are exact in bfloat16, as pairs.
static inline void store_pairs(bf16 *target, __m512 even, __m512 odd) {
    __m512i low = _mm512_srli_epi32((__m512i)even, 16), upper_half = _mm512_set1_epi32((int)0xffff0000);
    _mm512_storeu_si512(target, _mm512_ternarylogic_epi32(upper_half, (__m512i)odd, low, 0xea));  // (upper_half & odd) | low
}

static inline __m512 int8_values(const uint8_t *codes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes)));
}

// The bits of E4M3 moved into float16, whose exponent has another bias: 256 times too small, denormal numbers too.
static inline __m512 fp8_values(const uint8_t *codes) {
    __m256i bits = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)codes));
    __m256i sign = _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi16(0x80)), 8);
    __m256i rest = _mm256_slli_epi16(_mm256_and_si256(bits, _mm256_set1_epi16(0x7f)), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(sign, rest)), _mm512_set1_ps(256.0f));
}

static inline void unpack_nibbles(const uint8_t *codes, const bf16 *table, bf16 *target) {
    __m512i values = _mm512_loadu_si512(table);
    for (int step = 0; step < SLICE / 8; step++) {
        __m512i nibbles = _mm512_loadu_si512(codes + 64 * step);
        for (int pair = 0; pair < 4; pair++, target += 32) {
            _mm512_storeu_si512(target, _mm512_permutexvar_epi16(nibbles, values));  // by the lowest five bits of a word: the table is there twice
            nibbles = _mm512_srli_epi16(nibbles, 4);
        }
    }
}

// Write the values of a slice of codes, from input `k` on, as a tile.
static inline void unpack_slice(const Source *source, int64_t k, bf16 *target) {
    const uint8_t *codes = codes_at(source, k);
    if (source->matrix->kind == CODES_4BIT) unpack_nibbles(codes, source->matrix->table, target);
    else if (source->matrix->kind == CODES_INT8)
        for (int pair = 0; pair < SLICE / 2; pair++, codes += 32) store_pairs(target + pair * 32, int8_values(codes), int8_values(codes + 16));
    else
        for (int pair = 0; pair < SLICE / 2; pair++, codes += 32) store_pairs(target + pair * 32, fp8_values(codes), fp8_values(codes + 16));
}

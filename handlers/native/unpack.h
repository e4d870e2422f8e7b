// Weights as they lie in memory, and how 16 columns of them become tiles of bfloat16: (inputs / 2) rows of 16 columns of pairs of inputs.

#pragma once

#include "numbers.h"

enum { PLAIN, CODES_4BIT, CODES_INT8, CODES_FP8 };

#define SLICE 32  // inputs that are unpacked together: what one tile register holds

// A weight, in tiles of 16 columns, whole tiles one after the other. Its codes, by kind:
//   PLAIN       bfloat16: [inputs / 2][16 columns][pair of inputs]
//   CODES_INT8  and CODES_FP8 (E4M3): the same with a byte each
//   CODES_4BIT  [inputs / 8][16 dwords][8 nibbles, the lowest first]: nibble n of dword d is column 8 (n % 2) + d / 2, input n / 2 * 2 + d % 2
// Scales, and minima where there are any: [columns / 16][inputs / group][16 columns] in float16, as multiples of a unit of the matrix's own;
// weight = value of the code * scale + minimum.
typedef struct {
    int64_t columns, depth, kind, group;  // group: inputs that share a scale; 8, 16, or a multiple of 32
    float scale_unit, minimum_unit;
    const uint8_t *codes;
    const uint16_t *scales, *minima;      // NULL if PLAIN; minima NULL: none
    const float *table;                   // (16), the values of 4-bit codes
    const int64_t *order;                 // (depth), which input each of its own is; NULL: as they stand
} Matrix;

static const int64_t slice_bytes[] = {[PLAIN] = 1024, [CODES_4BIT] = 256, [CODES_INT8] = 512, [CODES_FP8] = 512};

// One tile of columns, read slice by slice.
typedef struct {
    const Matrix *matrix;
    const uint8_t *codes;
    const uint16_t *scales, *minima;
    int64_t left;  // inputs before the next scale
} Source;

static inline Source source_of(const Matrix *matrix, int64_t tile) {
    int64_t groups = matrix->kind == PLAIN ? 0 : matrix->depth / matrix->group;
    return (Source){
        .matrix = matrix,
        .codes = matrix->codes + tile * (matrix->depth / SLICE) * slice_bytes[matrix->kind],
        .scales = matrix->scales + tile * groups * BLOCK,
        .minima = matrix->minima ? matrix->minima + tile * groups * BLOCK : NULL,
        .left = matrix->group,
    };
}

// What 8 columns need, twice each, because a register holds pairs of their inputs.
typedef struct { __m512 scale[2], minimum[2]; } Factors;

static inline void twice(const uint16_t *columns, float unit, __m512 halves[2]) {
    const __m512i first = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    __m512 values = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)columns)), _mm512_set1_ps(unit));
    halves[0] = _mm512_permutexvar_ps(first, values);
    halves[1] = _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(8)), values);
}

static inline void load_factors(const Source *source, int64_t group, Factors *factors) {
    factors->minimum[0] = factors->minimum[1] = _mm512_setzero_ps();
    twice(source->scales + group * BLOCK, source->matrix->scale_unit, factors->scale);
    if (source->minima) twice(source->minima + group * BLOCK, source->matrix->minimum_unit, factors->minimum);
}

// Two registers of values, 8 columns each, to one of a tile.
static inline void store_pairs(bf16 *target, __m512 first, __m512 second, const Factors *factors) {
    first = _mm512_fmadd_ps(first, factors->scale[0], factors->minimum[0]);
    second = _mm512_fmadd_ps(second, factors->scale[1], factors->minimum[1]);
    _mm512_storeu_si512(target, (__m512i)_mm512_cvtne2ps_pbh(second, first));
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

// Eight inputs of 16 columns: four registers of a tile.
static inline __attribute__((always_inline)) const uint8_t *unpack_eight(
    int64_t kind, const uint8_t *codes, __m512 table, const Factors *factors, bf16 *target) {
    if (kind == CODES_4BIT) {
        __m512i nibbles = _mm512_loadu_si512(codes);
        for (int pair = 0; pair < 4; pair++) {
            __m512 first = _mm512_permutexvar_ps(nibbles, table);  // by the lowest four bits of a lane
            __m512 second = _mm512_permutexvar_ps(_mm512_srli_epi32(nibbles, 4), table);
            nibbles = _mm512_srli_epi32(nibbles, 8);
            store_pairs(target + pair * 32, first, second, factors);
        }
        return codes + 64;
    }
    for (int pair = 0; pair < 4; pair++, codes += 32) {
        if (kind == CODES_INT8) store_pairs(target + pair * 32, int8_values(codes), int8_values(codes + 16), factors);
        else store_pairs(target + pair * 32, fp8_values(codes), fp8_values(codes + 16), factors);
    }
    return codes;
}

static inline __attribute__((always_inline)) void unpack_kind(int64_t kind, Source *source, bf16 *target) {
    const uint8_t *codes = source->codes;
    __m512 table = kind == CODES_4BIT ? _mm512_loadu_ps(source->matrix->table) : _mm512_setzero_ps();
    int64_t group = source->matrix->group;
    Factors factors;
    load_factors(source, 0, &factors);
    for (int part = 0; part < SLICE / 8; part++) {
        if (group < SLICE && part && part * 8 % group == 0) load_factors(source, part * 8 / group, &factors);
        codes = unpack_eight(kind, codes, table, &factors, target + part * 8 * BLOCK);
    }
    source->codes = codes;
}

// Write the next slice of a tile to `target`, and step to the one after it.
static inline void unpack_slice(Source *source, bf16 *target) {
    int64_t kind = source->matrix->kind, group = source->matrix->group;
    if (kind == CODES_4BIT) unpack_kind(CODES_4BIT, source, target);
    else if (kind == CODES_INT8) unpack_kind(CODES_INT8, source, target);
    else unpack_kind(CODES_FP8, source, target);
    source->left -= SLICE;
    if (source->left > 0) return;
    int64_t step = BLOCK * (group < SLICE ? SLICE / group : 1);
    source->scales += step;
    if (source->minima) source->minima += step;
    source->left = group;
}

// A few rows of activations times two tiles of weights: with AMX (Intel's Software Developer's Manual, volume 1, chapter 18), or without.

#pragma once

#include "numbers.h"
#include "tiles.h"

typedef float Panel[32][32];  // 32 rows by two tiles of columns

#ifdef __AMX_BF16__

#define PREFETCH_BYTES 4096

static inline void prefetch_tile(const bf16 *tile) {
    for (int line = 0; line < 16; line++) _mm_prefetch((const char *)tile + PREFETCH_BYTES + 64 * line, _MM_HINT_T0);
}

// `rows` (at most 32) of `inputs`, (rows, depth), times two tiles of columns.
static void multiply(const bf16 *inputs, int64_t rows, const bf16 *weights, int64_t depth, int fresh, Panel panel) {
    const bf16 *second = weights + depth * BLOCK;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t k = 0; k < depth; k += 32) {
        if (fresh) prefetch_tile(weights + k * BLOCK), prefetch_tile(second + k * BLOCK);
        _tile_loadd(6, weights + k * BLOCK, 64);
        _tile_loadd(7, second + k * BLOCK, 64);
        _tile_loadd(4, inputs + k, depth * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (rows <= 16) continue;
        _tile_loadd(5, inputs + 16 * depth + k, depth * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &panel[0][0], 128);
    _tile_stored(1, &panel[0][16], 128);
    if (rows <= 16) return;
    _tile_stored(2, &panel[16][0], 128);
    _tile_stored(3, &panel[16][16], 128);
}

#else

static inline __attribute__((always_inline)) void multiply_rows(
    const bf16 *inputs, const int rows, const bf16 *weights, int64_t depth, float (*panel)[32]) {
    const bf16 *second = weights + depth * BLOCK;
    __m512 left[8], right[8];
    for (int row = 0; row < rows; row++) left[row] = right[row] = _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += 2) {
        _mm_prefetch((const char *)(weights + k * BLOCK) + 2048, _MM_HINT_T0);
        _mm_prefetch((const char *)(second + k * BLOCK) + 2048, _MM_HINT_T0);
        __m512bh first_pairs = (__m512bh)_mm512_loadu_si512(weights + k * BLOCK);
        __m512bh second_pairs = (__m512bh)_mm512_loadu_si512(second + k * BLOCK);
        for (int row = 0; row < rows; row++) {
            __m512bh input = broadcast_pair(inputs + row * depth + k);
            left[row] = _mm512_dpbf16_ps(left[row], first_pairs, input);
            right[row] = _mm512_dpbf16_ps(right[row], second_pairs, input);
        }
    }
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(&panel[row][0], left[row]);
        _mm512_storeu_ps(&panel[row][16], right[row]);
    }
}

static void multiply(const bf16 *inputs, int64_t rows, const bf16 *weights, int64_t depth, int fresh, Panel panel) {
    (void)fresh;
    int64_t row = 0;
    for (; row + 8 <= rows; row += 8) multiply_rows(inputs + row * depth, 8, weights, depth, panel + row);
    for (; row + 4 <= rows; row += 4) multiply_rows(inputs + row * depth, 4, weights, depth, panel + row);
    for (; row + 2 <= rows; row += 2) multiply_rows(inputs + row * depth, 2, weights, depth, panel + row);
    if (row < rows) multiply_rows(inputs + row * depth, 1, weights, depth, panel + row);
}

#endif

// A few rows of activations times two tiles of weights: with AMX (Intel's Software Developer's Manual, volume 1, chapter 18), or without.

#pragma once

#include "tiles.h"
#include "unpack.h"

typedef float Panel[32][32];  // 32 rows by two tiles of columns

// Two tiles of columns that are read side by side, and where a thread unpacks them. Rows are multiplied 32 at a time: the first of them read
// `fresh` tiles; if more are to follow, all that was unpacked is `kept` for them (depth * 32 numbers), else the last two slices.
typedef struct {
    Source sources[2];
    bf16 *scratch;
    int fresh, kept;
} Pair;

static inline bf16 *slice_of(const Pair *pair, int64_t k, int side) {
    return pair->scratch + (2 * (pair->kept ? k : k % (2 * SLICE)) + SLICE * side) * BLOCK;
}

#define CODES_AHEAD 4096  // bytes
#define SCALES_AHEAD 512

static inline void prefetch(const Source *source) {
    for (int64_t line = 0; line < slice_bytes[source->matrix->kind]; line += 64)
        _mm_prefetch((const char *)source->codes + CODES_AHEAD + line, _MM_HINT_T0);
    _mm_prefetch((const char *)source->scales + SCALES_AHEAD, _MM_HINT_T0);
    _mm_prefetch((const char *)source->minima + SCALES_AHEAD, _MM_HINT_T0);
}

// Return a slice of both tiles as bfloat16: in place, or unpacked.
static inline void read_slice(Pair *pair, int64_t k, const bf16 *slices[2]) {
    for (int side = 0; side < 2; side++) {
        Source *source = pair->sources + side;
        if (pair->fresh) prefetch(source);
        if (source->matrix->kind == PLAIN) {
            slices[side] = (const bf16 *)source->codes;
            source->codes += slice_bytes[PLAIN];
            continue;
        }
        bf16 *unpacked = slice_of(pair, k, side);
        if (pair->fresh) unpack_slice(source, unpacked);
        slices[side] = unpacked;
    }
}

#ifdef __AMX_BF16__

// `rows` (at most 32) of `inputs`, (rows, depth), times a pair of tiles.
static void multiply(const bf16 *inputs, int64_t rows, Pair *pair, int64_t depth, Panel panel) {
    const bf16 *slices[2];
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t k = 0; k < depth; k += SLICE) {
        read_slice(pair, k, slices);
        _tile_loadd(6, slices[0], 64);
        _tile_loadd(7, slices[1], 64);
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
    const bf16 *inputs, const int rows, const Pair *start, int fresh, int64_t depth, float (*panel)[32]) {
    Pair pair = *start;
    pair.fresh = fresh;
    const bf16 *slices[2];
    __m512 left[8], right[8];
    for (int row = 0; row < rows; row++) left[row] = right[row] = _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += SLICE) {
        read_slice(&pair, k, slices);
        for (int input = 0; input < SLICE; input += 2) {
            __m512bh first_pairs = (__m512bh)_mm512_loadu_si512(slices[0] + input * BLOCK);
            __m512bh second_pairs = (__m512bh)_mm512_loadu_si512(slices[1] + input * BLOCK);
            for (int row = 0; row < rows; row++) {
                __m512bh inputs_here = broadcast_pair(inputs + row * depth + k + input);
                left[row] = _mm512_dpbf16_ps(left[row], first_pairs, inputs_here);
                right[row] = _mm512_dpbf16_ps(right[row], second_pairs, inputs_here);
            }
        }
    }
    for (int row = 0; row < rows; row++) {
        _mm512_storeu_ps(&panel[row][0], left[row]);
        _mm512_storeu_ps(&panel[row][16], right[row]);
    }
}

static void multiply(const bf16 *inputs, int64_t rows, Pair *pair, int64_t depth, Panel panel) {
    int64_t row = 0;
    int fresh = pair->fresh;
    pair->kept = 1;  // rows come in several groups
    for (; row + 8 <= rows; row += 8, fresh = 0) multiply_rows(inputs + row * depth, 8, pair, fresh, depth, panel + row);
    for (; row + 4 <= rows; row += 4, fresh = 0) multiply_rows(inputs + row * depth, 4, pair, fresh, depth, panel + row);
    for (; row + 2 <= rows; row += 2, fresh = 0) multiply_rows(inputs + row * depth, 2, pair, fresh, depth, panel + row);
    if (row < rows) multiply_rows(inputs + row * depth, 1, pair, fresh, depth, panel + row);
}

#endif

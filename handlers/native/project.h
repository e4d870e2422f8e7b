// Rows of activations times whole matrices, shared out among the threads of a parallel region.

#pragma once

#include <omp.h>

#include "matrix.h"

// What threads need beside the operands: where each unpacks two tiles, (depth, 32) numbers, `stride` apart (NULL if nothing is packed), and
// where all together put the sums of each group's inputs, (rows, groups), for matrices with minima.
typedef struct {
    bf16 *memory;
    int64_t stride;
    float *sums;
} Scratch;

typedef struct {
    const void *model;
    const float *bias;
    float *target;
    int64_t width;
} Output;

// Take what two tiles of columns of one row came to: of one matrix side by side, or the same columns of two matrices.
typedef void Finish(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second);

static inline float sum_of(const bf16 *inputs, int64_t count) {
    if (count < BLOCK) return _mm512_mask_reduce_add_ps(0xff, widened(inputs));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += BLOCK) sum = _mm512_add_ps(sum, widened(inputs + i));
    return _mm512_reduce_add_ps(sum);
}

// Whoever still reads earlier sums is waited for.
static void sum_groups(const bf16 *inputs, int64_t rows, const Matrix *matrix, float *sums) {
    int64_t depth = matrix->depth, group = matrix->group, groups = depth / group;
#pragma omp barrier
#pragma omp for
    for (int64_t row = 0; row < rows; row++)
        for (int64_t g = 0; g < groups; g++) sums[row * groups + g] = sum_of(inputs + row * depth + g * group, group);
}

// Multiply `rows` of `inputs` by all columns, a multiple of 32, and finish them two tiles at a time. Does not wait for the other threads.
// Each takes long runs of panels first: what was prefetched beyond the end of one is lost.
static inline __attribute__((always_inline)) void project_pairs(
    const bf16 *inputs, int64_t rows, const Matrix *first, const Matrix *second, const Scratch *scratch, Finish *finish, const Output *output) {
    int64_t depth = first->depth, groups = depth / first->group, step = first == second ? 2 : 1;  // tiles of a matrix in a panel
    bf16 *unpacked = scratch->memory + omp_get_thread_num() * scratch->stride;
    if (first->minima || second->minima) sum_groups(inputs, rows, first, scratch->sums);
    shape_tiles_for_matrices(rows, first->group);
#pragma omp for schedule(guided) nowait
    for (int64_t tile = 0; tile < first->columns / BLOCK; tile += step)
        for (int64_t row = 0; row < rows; row += 32) {
            int64_t rows_here = rows - row < 32 ? rows - row : 32;
            Pair pair = {
                .sources = {source_of(first, tile), source_of(second, tile + step - 1)},
                .scratch = unpacked, .fresh = row == 0, .kept = rows > 32};
            Panel panel;
            multiply(inputs + row * depth, rows_here, &pair, scratch->sums + row * groups, panel);
            for (int64_t r = 0; r < rows_here; r++)
                finish(output, row + r, tile * BLOCK, _mm512_loadu_ps(&panel[r][0]), _mm512_loadu_ps(&panel[r][16]));
        }
}

static inline __attribute__((always_inline)) void project(
    const bf16 *inputs, int64_t rows, const Matrix *matrix, const Scratch *scratch, Finish *finish, const Output *output) {
    project_pairs(inputs, rows, matrix, matrix, scratch, finish, output);
}

static inline void store(const Output *output, int64_t row, int64_t column, __m512 first, __m512 second) {
    float *target = output->target + row * output->width + column;
    if (output->bias) {
        first = _mm512_add_ps(first, _mm512_loadu_ps(output->bias + column));
        second = _mm512_add_ps(second, _mm512_loadu_ps(output->bias + column + 16));
    }
    _mm512_storeu_ps(target, first);
    _mm512_storeu_ps(target + 16, second);
}

// One linear layer over a matrix in any form: what a PackedLinear computes outside of the decoder.

#include "project.h"

// `rows` of bfloat16 (with room for a multiple of 32) times `matrix`: float32 (rows, columns). Scratch: 32 * depth numbers a thread, and
// `sums`, (rows, groups).
void marquee_linear(
    const Matrix *matrix, const bf16 *inputs, bf16 *scratch, float *sums, float *outputs, int64_t rows, int64_t num_threads) {
    Scratch unpacked = {.memory = scratch, .stride = 2 * BLOCK * matrix->depth, .sums = sums};
    Output output = {.target = outputs, .width = matrix->columns};
#pragma omp parallel num_threads((int)num_threads)
    {
        project(inputs, rows, matrix, &unpacked, store, &output);
        release_tiles();
    }
}

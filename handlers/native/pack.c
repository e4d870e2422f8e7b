// Rows of weights into the tiles of unpack.h, once, when a model is loaded.

#include "tiles.h"
#include "unpack.h"

// Of `columns` rows of bfloat16 to [columns / 16][inputs / 2][16 columns][pair].
void marquee_pack_pairs(const uint32_t *rows, uint32_t *tiles, int64_t columns, int64_t inputs, int64_t num_threads) {
    int64_t pairs = inputs / 2;
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t tile = 0; tile < columns / BLOCK; tile++)
        for (int64_t pair = 0; pair < pairs; pair++)
            for (int64_t column = 0; column < BLOCK; column++)
                tiles[(tile * pairs + pair) * BLOCK + column] = rows[(tile * BLOCK + column) * pairs + pair];
}

// Of `columns` rows of bytes to [columns / 16][inputs][16 columns].
void marquee_pack_bytes(const uint8_t *rows, uint8_t *tiles, int64_t columns, int64_t inputs, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t tile = 0; tile < columns / BLOCK; tile++)
        for (int64_t input = 0; input < inputs; input++)
            for (int64_t column = 0; column < BLOCK; column++)
                tiles[(tile * inputs + input) * BLOCK + column] = rows[(tile * BLOCK + column) * inputs + input];
}

// Of `columns` rows of `inputs` 4-bit codes, a byte each, to [columns / 16][inputs / 8][16 columns][pair] words.
void marquee_pack_nibbles(const uint8_t *rows, uint16_t *tiles, int64_t columns, int64_t inputs, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t tile = 0; tile < columns / BLOCK; tile++)
        for (int64_t step = 0; step < inputs / 8; step++)
            for (int64_t place = 0; place < 2 * BLOCK; place++) {
                const uint8_t *codes = rows + (tile * BLOCK + place / 2) * inputs + 8 * step + place % 2;
                tiles[(tile * (inputs / 8) + step) * 2 * BLOCK + place] = codes[0] | codes[2] << 4 | codes[4] << 8 | codes[6] << 12;
            }
}

// Rows of weights into the tiles of unpack.h, once, when a model is loaded.

#include "tiles.h"
#include "unpack.h"

// Of `columns` rows of `pairs` pairs of inputs, `pair_bytes` each, to [columns / 16][pairs][16 columns][pair].
void marquee_pack_pairs(const uint8_t *rows, uint8_t *tiles, int64_t columns, int64_t pairs, int64_t pair_bytes, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t tile = 0; tile < columns / BLOCK; tile++)
        for (int64_t pair = 0; pair < pairs; pair++)
            for (int64_t column = 0; column < BLOCK; column++) {
                const uint8_t *source = rows + ((tile * BLOCK + column) * pairs + pair) * pair_bytes;
                uint8_t *target = tiles + ((tile * pairs + pair) * BLOCK + column) * pair_bytes;
                if (pair_bytes == 2) memcpy(target, source, 2);
                else memcpy(target, source, 4);
            }
}

// Of `columns` rows of `inputs` 4-bit codes, a byte each, to [columns / 16][inputs / 8][16 dwords].
void marquee_pack_nibbles(const uint8_t *rows, uint32_t *tiles, int64_t columns, int64_t inputs, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t tile = 0; tile < columns / BLOCK; tile++)
        for (int64_t step = 0; step < inputs / 8; step++)
            for (int64_t lane = 0; lane < 16; lane++) {
                uint32_t dword = 0;
                for (int64_t nibble = 0; nibble < 8; nibble++) {
                    int64_t column = tile * BLOCK + 8 * (nibble % 2) + lane / 2, input = 8 * step + nibble / 2 * 2 + lane % 2;
                    dword |= (uint32_t)rows[column * inputs + input] << (4 * nibble);
                }
                tiles[(tile * (inputs / 8) + step) * 16 + lane] = dword;
            }
}


// The tile registers of AMX: eight of 16 rows of 64 bytes, shaped by a configuration. Without AMX nothing needs to be prepared.

#pragma once

#include "numbers.h"

#ifdef __AMX_BF16__

#include <sys/syscall.h>
#include <unistd.h>

#define HAS_TILES 1

// Constants, because gcc 12 takes only the first bytes of a configuration for read and may drop stores to the others.
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

// Tiles 0 to 3 hold products, 4 and 5 `r` rows of `k` inputs, 6 and 7 the weights of those inputs.
#define TILES(r, k) {.palette = 1, .row_bytes = {64, 64, 64, 64, 2 * k, 2 * k, 64, 64}, .rows = {r, r, r, r, r, r, k / 2, k / 2}}
#define TILES_FOR(k) { \
    TILES(1, k), TILES(2, k), TILES(3, k), TILES(4, k), TILES(5, k), TILES(6, k), TILES(7, k), TILES(8, k), \
    TILES(9, k), TILES(10, k), TILES(11, k), TILES(12, k), TILES(13, k), TILES(14, k), TILES(15, k), TILES(16, k)}

static const TileConfig matrix_tiles[3][16] = {TILES_FOR(32), TILES_FOR(16), TILES_FOR(8)};

// Tile 6 holds weights of 16 tokens in bfloat16, tile 7 their values.
static const TileConfig attention_tiles = {
    .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 32, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 8}};

// Linux lets a process use the tiles once it has asked (arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
int marquee_prepare(void) { return (int)syscall(SYS_arch_prctl, 0x1023, 18); }

static void shape_tiles_for_matrices(int64_t rows, int64_t group) {
    int inputs = group >= 32 ? 0 : group == 16 ? 1 : 2;
    _tile_loadconfig(&matrix_tiles[inputs][rows < 16 ? rows - 1 : 15]);
}

static void shape_tiles_for_attention(void) { _tile_loadconfig(&attention_tiles); }
static void release_tiles(void) { _tile_release(); }

#else

#define HAS_TILES 0

int marquee_prepare(void) { return 0; }
static void shape_tiles_for_matrices(int64_t rows, int64_t group) { (void)rows, (void)group; }
static void shape_tiles_for_attention(void) {}
static void release_tiles(void) {}

#endif

// The kernels as host code: whole grids, block by block, in an order that no GPU promises (the last block first).
#include "decoder.cu"

extern "C" void run_kernel(int kernel, const Batch* batch, int num_blocks_x, int num_blocks_y) {
    void (*const kernels[])(Batch) = {fill_taps, decode_segments, resample, resample_bicubic, decode_indexed};
    g_num_blocks_y = num_blocks_y;
    for (g_block_y = num_blocks_y - 1; g_block_y >= 0; g_block_y--) {
        for (g_block_x = num_blocks_x - 1; g_block_x >= 0; g_block_x--) kernels[kernel](*batch);
    }
}

extern "C" int size_of(int what) { return what ? (int)sizeof(Batch) : (int)sizeof(Crop); }

// The inverse DCT of libjpeg's accurate integer method, as pipelines/roc/decoder/idct.py, equal to the bit.
//
// Arithmetic is unsigned, because invalid data may wrap around, which is undefined for signed numbers in C++.
#pragma once
#include "portable.cuh"

#define FRACTION_BITS 13
#define FIXED(x) ((u32)(i32)((x) * (1 << FRACTION_BITS) + ((x) < 0 ? -0.5 : 0.5)))

// x / 2**shift, rounded down; `x` is a signed number.
DEVICE u32 shifted(u32 x, i32 shift) { return (u32)((i32)x >> shift); }

// One dimension of eight numbers: from frequencies to samples, divided by 2**shift and rounded.
DEVICE void idct8(u32* x, i32 shift) {
    u32 rounding = 1u << (shift - 1);
    u32 z1 = (x[2] + x[6]) * FIXED(0.541196100);
    u32 low = z1 - x[6] * FIXED(1.847759065), high = z1 + x[2] * FIXED(0.765366865);
    u32 total = ((x[0] + x[4]) << FRACTION_BITS) + rounding, difference = ((x[0] - x[4]) << FRACTION_BITS) + rounding;
    u32 even0 = total + high, even1 = difference + low, even2 = difference - low, even3 = total - high;

    u32 z3 = x[7] + x[3], z4 = x[5] + x[1], z5 = (z3 + z4) * FIXED(1.175875602);
    u32 z7 = (x[7] + x[1]) * FIXED(-0.899976223), z2 = (x[5] + x[3]) * FIXED(-2.562915447);
    z3 = z3 * FIXED(-1.961570560) + z5, z4 = z4 * FIXED(-0.390180644) + z5;
    u32 odd0 = x[1] * FIXED(1.501321110) + z7 + z4, odd1 = x[3] * FIXED(3.072711026) + z2 + z3;
    u32 odd2 = x[5] * FIXED(2.053119869) + z2 + z4, odd3 = x[7] * FIXED(0.298631336) + z7 + z3;

    x[0] = shifted(even0 + odd0, shift), x[7] = shifted(even0 - odd0, shift);
    x[1] = shifted(even1 + odd1, shift), x[6] = shifted(even1 - odd1, shift);
    x[2] = shifted(even2 + odd2, shift), x[5] = shifted(even2 - odd2, shift);
    x[3] = shifted(even3 + odd3, shift), x[4] = shifted(even3 - odd3, shift);
}

// The byte of a sample around 0. The CPU's vectors hold 16 bits here.
DEVICE u32 byte_of_sample(u32 x) { return (u32)(at_most(at_least((i32)(i16)(u16)x, -128), 127) + 128); }

// Transforms a block of 64 dequantized coefficients, row major, element k at block[k * step], and writes its samples.
// Leaves zeros in the block. T holds every number after the first pass.
template <class T, i32 step>
DEVICE void write_block(T* block, u8* to, i32 stride) {
    KEEP_LOOP
    for (i32 column = 0; column < 8; column++) {
        u32 x[8];
        for (i32 k = 0; k < 8; k++) x[k] = (u32)(i32)block[(8 * k + column) * step];
        idct8(x, FRACTION_BITS - 2);
        for (i32 k = 0; k < 8; k++) block[(8 * k + column) * step] = (T)x[k];
    }
    KEEP_LOOP
    for (i32 row = 0; row < 8; row++) {
        u32 x[8];
        for (i32 k = 0; k < 8; k++) {
            x[k] = (u32)(i32)block[(8 * row + k) * step];
            block[(8 * row + k) * step] = 0;
        }
        idct8(x, FRACTION_BITS + 5);
        u32 packed[2] = {0, 0};
        for (i32 k = 0; k < 8; k++) packed[k / 4] |= byte_of_sample(x[k]) << 8 * (k % 4);
        u32* place = (u32*)(to + (i64)row * stride);
#if ON_GPU
        *(uint2*)place = make_uint2(packed[0], packed[1]);
#else
        place[0] = packed[0], place[1] = packed[1];
#endif
    }
}

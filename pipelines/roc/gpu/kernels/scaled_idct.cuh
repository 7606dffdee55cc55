// Inverse transforms of the 4 x 4, 2 x 2 or 1 x 1 lowest frequencies of a block: the image at a half, a quarter or an
// eighth of its sides, as pipelines/roc/decoder/idct.py, equal to the bit.
#pragma once
#include "idct.cuh"

// One dimension of `side` numbers, as idct8.
template <i32 side>
DEVICE void idct_scaled(u32* x, i32 shift) {
    u32 rounding = 1u << (shift - 1);
    if constexpr (side == 1) {
        x[0] = shifted((x[0] << FRACTION_BITS) + rounding, shift);
    } else {
        u32 total = ((x[0] + x[side / 2]) << FRACTION_BITS) + rounding;
        u32 difference = ((x[0] - x[side / 2]) << FRACTION_BITS) + rounding;
        if constexpr (side == 2) {
            x[0] = shifted(total, shift), x[1] = shifted(difference, shift);
        } else {
            u32 z1 = (x[1] + x[3]) * FIXED(0.541196100);
            u32 low = z1 - x[3] * FIXED(1.847759065), high = z1 + x[1] * FIXED(0.765366865);
            x[0] = shifted(total + high, shift), x[3] = shifted(total - high, shift);
            x[1] = shifted(difference + low, shift), x[2] = shifted(difference - low, shift);
        }
    }
}

template <class T, i32 step>
DEVICE void clear_block(T* block) {
    for (i32 k = 0; k < 64; k++) block[k * step] = 0;
}

// As write_block, with `side` samples a side.
template <class T, i32 step, i32 side>
DEVICE void write_scaled(T* block, u8* to, i32 stride) {
    u32 first[side][side];
    for (i32 column = 0; column < side; column++) {
        u32 x[side];
        for (i32 k = 0; k < side; k++) x[k] = (u32)(i32)block[(8 * k + column) * step];
        idct_scaled<side>(x, FRACTION_BITS - 2);
        for (i32 k = 0; k < side; k++) first[k][column] = x[k];
    }
    for (i32 row = 0; row < side; row++) {
        idct_scaled<side>(first[row], FRACTION_BITS + 5);
        u32 packed = 0;
        for (i32 k = 0; k < side; k++) packed |= byte_of_sample(first[row][k]) << 8 * k;
        u8* place = to + (i64)row * stride;
        if constexpr (side == 4) *(u32*)place = packed;
        if constexpr (side == 2) *(u16*)place = (u16)packed;
        if constexpr (side == 1) *place = (u8)packed;
    }
    clear_block<T, step>(block);
}

// Writes a block of 8, 4, 2 or 1 samples a side.
template <class T, i32 step>
DEVICE void write_samples(i32 side, T* block, u8* to, i32 stride) {
    if (side == 8) write_block<T, step>(block, to, stride);
    else if (side == 4) write_scaled<T, step, 4>(block, to, stride);
    else if (side == 2) write_scaled<T, step, 2>(block, to, stride);
    else write_scaled<T, step, 1>(block, to, stride);
}

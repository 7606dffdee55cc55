// Entropy decoding of one segment by one thread: from its stored bytes to samples in the planes.
#pragma once
#include "idct.cuh"
#include "jpeg_tables.cuh"

#ifdef __CUDACC_RTC__
#define LANE_STEP BLOCK_THREADS  // coefficient k of thread t at [k * LANE_STEP + t]: no two threads in the same bank
#else
#ifdef REAL_THREADS
#define LANE_STEP BLOCK_THREADS
#else
#define LANE_STEP 1
#endif
#endif

// A block has at most 64 codes of 16 bits with values of 15 bits, and a segment 8 MCUs of 6 blocks.
#define MAX_BLOCK_WORDS 62
#define MAX_SEGMENT_WORDS (48 * MAX_BLOCK_WORDS)
// The largest sum of absolute coefficients for which the first pass of the inverse DCT stays within 16 bits. Its outputs
// are 4 times the coefficients times at most 1.388. Photographs stay far below.
#define MAX_SUM 5800

// Words of the stage for a segment of `length` bytes, three of them for zeros at its end.
DEVICE u32 stage_words(i32 length) { return (u32)at_most(length / 4, MAX_SEGMENT_WORDS) + 3; }

// Removes the zeros that are stuffed after each 0xFF, and stores big-endian words with zeros at their end. A marker must
// stand at p[length].
//
// The decoder of a thread can then refill at any bit. Without this step threads refill out of phase, which took 118
// instead of 48 instructions for a symbol. Returns the number of bytes, or -1 if a marker is among them or if they are
// more than any segment needs.
DEVICE i32 unstuff(const u8* p, i32 length, u32* to) {
    const u8* end = p + length;
    u64 held = 0;
    i32 num_held = 0, total = 0;
    KEEP_LOOP
    while (p < end) {
        // A byte's highest bit is set if it or a byte below it is 0xFF.
        u32 word = four_bytes(p), marks = (~word - 0x01010101u) & word & 0x80808080u, kept;
        i32 num = marks ? trailing_zeros(marks) >> 3 : 4;
        if (num == 0) {
            if (word & 0xFF00) return -1;
            kept = 0xFF000000u, num = 1, p += 2;
        } else {
            kept = swap_bytes(word) & (u32)((i32)0x80000000 >> (8 * num - 1)), p += num;
        }
        held |= (u64)kept << (32 - 8 * num_held);
        num_held += num, total += num;
        if (num_held >= 4) *to++ = (u32)(held >> 32), held <<= 32, num_held -= 4;
        if (total > 4 * MAX_SEGMENT_WORDS) return -1;
    }
    to[0] = (u32)(held >> 32), to[1] = to[2] = 0;
    return total;
}

DEVICE u32 peek(const u32* words, u32 at) { return window_of(words[at >> 5], words[(at >> 5) + 1], at & 31); }

// The signed value in the first `size` bits (JPEG standard, F.2.2.1): a leading 0 makes it negative.
DEVICE i32 value_of(u32 bits, i32 size) {
    i32 value = (i32)(bits >> 1 >> (31 - size));
    return (i32)bits < 0 ? value : value - ((1 << size) - 1);
}

// A position in the bits of a segment, and the last DC value of each component.
struct Reader {
    const u32* words;
    u32 at;
    i32 dc[3];
};

// Reads a block's coefficients, dequantized, row major, element k to block[k * step]. Returns the sum of their absolute
// values, or -1 if a code is invalid.
template <class T, i32 step>
DEVICE i32 read_block(Reader& reader, i32 component, const Tables& tables, T* block) {
    const u32* steps = tables.steps + 64 * tables.components[component][0];
    i32 number = tables.components[component][1];
    u32 bits = peek(reader.words, reader.at), entry = tables.lookup[number * LOOKUP_SIZE + (bits >> (32 - LOOKUP_BITS))];
    if (entry == 0) entry = find_code(tables, number, (i32)(bits >> 16), LOOKUP_BITS + 1, 16);
    if (entry == 0) return -1;
    i32 length = entry & 31, size = entry >> 5 & 15, value = value_of(bits << length, size);
    reader.at += length + size;
    if (component == 0) value = reader.dc[0] += value;
    else if (component == 1) value = reader.dc[1] += value;
    else value = reader.dc[2] += value;
    value *= (i32)(steps[0] >> 8);
    block[0] = (T)value;
    i32 sum = value < 0 ? -value : value;
    number = tables.components[component][2];
    const u16* lookup = tables.lookup + number * LOOKUP_SIZE;
    KEEP_LOOP
    for (i32 k = 1; k < 64;) {
        bits = peek(reader.words, reader.at), entry = lookup[bits >> (32 - LOOKUP_BITS)];
        if (entry == 0) {
            entry = find_code(tables, number, (i32)(bits >> 16), LOOKUP_BITS + 1, 16);
            if (entry == 0) return -1;
        }
        length = entry & 31, size = entry >> 5 & 15;
        i32 run = entry >> 9;
        reader.at += length + size;
        k += run + 1;
        if (k > 64) return run == END_OF_BLOCK ? sum : -1;
        u32 quantization = steps[k - 1];
        value = value_of(bits << length, size) * (i32)(quantization >> 8);
        block[(quantization & 63) * step] = (T)value;
        sum += value < 0 ? -value : value;
    }
    return sum;
}

// Decodes a segment that has been unstuffed, from its MCU in column `mcu` and row `row` of the window on.
//
// `block` has room for 64 coefficients in shared memory and holds zeros. Coefficients of 16 bits leave room for 128
// threads. Where they are not enough, which only damaged data needs, the block is read again with 32 bits.
DEVICE bool decode_segment(const u32* words, i32 num_bytes, const Tables& tables, const Crop& crop, u8* scratch, i32 row,
                           i32 mcu, i16* block) {
    Reader reader = {words, 0, {0, 0, 0}};
    u32 end = 8 * (u32)num_bytes;
    i32 num_luma = tables.luma_rows * tables.luma_columns, num_blocks = num_luma + tables.num_components - 1;
    for (i32 m = 0; m < (i32)crop.interval; m++, mcu++) {
        KEEP_LOOP
        for (i32 n = 0; n < num_blocks; n++) {
            i32 component = n < num_luma ? 0 : n - num_luma + 1;
            Reader before = reader;
            i32 sum = read_block<i16, LANE_STEP>(reader, component, tables, block);
            if (sum < 0 || reader.at > end) return false;
            i32 stride = component ? chroma_stride(crop, 8) : luma_stride(crop);
            i32 block_row = component ? row : row * tables.luma_rows + n / tables.luma_columns;
            i32 block_column = component ? mcu : mcu * tables.luma_columns + n % tables.luma_columns;
            u8* to = scratch + plane_start(crop, component, 8) + (i64)(8 * block_row) * stride + 8 * block_column;
            if (sum <= MAX_SUM) {
                write_block<i16, LANE_STEP>(block, to, stride);
            } else {
                i32 exact[64];
                for (i32 k = 0; k < 64; k++) exact[k] = 0, block[k * LANE_STEP] = 0;
                read_block<i32, 1>(before, component, tables, exact);
                write_block<i32, 1>(exact, to, stride);
            }
        }
    }
    return end - reader.at < 8;
}

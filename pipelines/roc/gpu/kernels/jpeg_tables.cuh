// The headers of a level's JPEG as tables in shared memory. What they may contain is the same as in
// pipelines/roc/decoder/jpeg_tables.py; anything else is refused.
#pragma once
#include "batch.cuh"

#define BLOCK_THREADS 128  // of decode_segments; also the segments that a block decodes at a time
#define LOOKUP_BITS 10
#define LOOKUP_SIZE 1024
#define END_OF_BLOCK 64    // stored as a run, which no other symbol has

// Huffman table 2 * t + c has number t and class c: 0 for DC, 1 for AC. About 14 KB.
struct Tables {
    // What the next 10 bits begin with: bits of the code | bits of the value << 5 | run << 9. 0: the code is longer.
    u16 lookup[4 * LOOKUP_SIZE];
    u32 steps[4 * 64];                       // quantization step << 8 | row major position, in scan order
    i32 limit[4][18], offset[4][18];         // of codes of each length, as in Tables.codes of the CPU
    u8 symbols[4][256];                      // by rank
    i32 steps_at[4], codes_at[4];            // where they stand in the headers; 0 if they do not
    i32 num_symbols[4];
    i32 components[3][3];                    // quantization, DC and AC table
    i32 num_components, luma_rows, luma_columns;
    i32 height, width;
    i32 error;
    // For the segments that a block decodes at a time.
    i32 num_fitting;
    u32 before[2][BLOCK_THREADS];            // bytes up to the end of each run of segments
    u32 words[2][BLOCK_THREADS];             // of the stage, up to the end of each segment
    u32 at[BLOCK_THREADS];                   // position of each segment behind Crop.data
    i32 length[BLOCK_THREADS];               // bytes as stored without the marker; -1 if its place or marker is wrong
};

CONSTANT u8 SCAN_ORDER[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
                              41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
                              30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

DEVICE i32 two_bytes(const u8* p) { return p[0] << 8 | p[1]; }

DEVICE bool read_steps(const u8* header, i32 at, i32 end, Tables& tables) {
    for (; at < end; at += 65) {
        if (header[at] > 3 || at + 65 > end) return false;  // the upper four bits are the precision, 0 for bytes
        tables.steps_at[header[at]] = at + 1;
    }
    return true;
}

// Limits and offsets of the codes (JPEG standard, annex C). Symbols and lookups are filled later, by all threads.
DEVICE bool read_codes(const u8* header, i32 at, i32 end, Tables& tables) {
    while (at < end) {
        if (at + 17 > end || (header[at] & 15) > 1 || header[at] >> 4 > 1) return false;
        bool is_ac = header[at] >> 4 == 1;
        i32 number = 2 * (header[at] & 15) + is_ac, code = 0, rank = 0;
        for (i32 length = 1; length <= 16; length++) {
            i32 count = header[at + length];
            tables.offset[number][length] = rank - code;
            code += count, rank += count;
            if (code > 1 << length || rank > 256) return false;
            tables.limit[number][length] = code << (16 - length);
            code <<= 1;
        }
        tables.limit[number][17] = 1 << 17;
        if (at + 17 + rank > end) return false;
        for (i32 k = 0; k < rank && !is_ac; k++) {
            if (header[at + 17 + k] > 15) return false;
        }
        tables.codes_at[number] = at + 17, tables.num_symbols[number] = rank;
        at += 17 + rank;
    }
    return true;
}

DEVICE bool read_frame(const u8* header, i32 at, i32 end, Tables& tables, i32* ids) {
    if (end - at < 6 || header[at] != 8) return false;
    i32 count = header[at + 5];
    if ((count != 1 && count != 3) || end - at != 6 + 3 * count) return false;
    tables.height = two_bytes(header + at + 1), tables.width = two_bytes(header + at + 3);
    tables.num_components = count, tables.luma_rows = tables.luma_columns = 1;
    for (i32 k = 0; k < count; k++) {
        const u8* entry = header + at + 6 + 3 * k;
        i32 columns = entry[1] >> 4, rows = entry[1] & 15;
        bool known = columns == 4 ? rows == 1 : 1 <= columns && columns <= 2 && 1 <= rows && rows <= 2;
        if (entry[2] > 3 || !known) return false;
        if (k > 0 && entry[1] != 0x11) return false;
        ids[k] = entry[0], tables.components[k][0] = entry[2];
        // the MCU of a single component has one block, whatever its sampling
        if (k == 0 && count == 3) tables.luma_rows = rows, tables.luma_columns = columns;
    }
    return true;
}

// The scan must hold all components, in order and complete, and all their tables must have been seen.
DEVICE bool read_scan(const u8* header, i32 at, i32 end, Tables& tables, const i32* ids) {
    i32 count = tables.num_components, last = at + 1 + 2 * count;
    if (end - at != 4 + 2 * count || header[at] != count) return false;
    for (i32 k = 0; k < count; k++) {
        i32 id = header[at + 1 + 2 * k], chosen = header[at + 2 + 2 * k];
        if (id != ids[k] || chosen >> 4 > 1 || (chosen & 15) > 1) return false;
        i32* component = tables.components[k];
        component[1] = 2 * (chosen >> 4), component[2] = 2 * (chosen & 15) + 1;
        if (!tables.steps_at[component[0]] || !tables.codes_at[component[1]]) return false;
        if (!tables.codes_at[component[2]]) return false;
    }
    return header[last] == 0 && header[last + 1] == 63 && header[last + 2] == 0;
}

// From SOI to the end of SOS, by one thread.
DEVICE bool read_markers(const u8* header, i32 size, Tables& tables) {
    for (i32 k = 0; k < 4; k++) tables.steps_at[k] = tables.codes_at[k] = 0;
    i32 at = 2, ids[3] = {-1, -1, -1};
    bool have_frame = false;
    if (size < 4 || header[0] != 0xFF || header[1] != 0xD8) return false;
    while (at + 4 <= size && header[at] == 0xFF) {
        i32 marker = header[at + 1], body = at + 4, end = at + 2 + two_bytes(header + at + 2);
        if (end < body || end > size) return false;
        bool valid = marker == 0xDD || marker == 0xFE || (0xE0 <= marker && marker <= 0xEF);
        if (marker == 0xDB) valid = read_steps(header, body, end, tables);
        if (marker == 0xC4) valid = read_codes(header, body, end, tables);
        if (marker == 0xC0) {
            valid = !have_frame && read_frame(header, body, end, tables, ids);
            have_frame = true;
        }
        if (marker == 0xDA) return have_frame && end == size && read_scan(header, body, end, tables, ids);
        if (!valid) return false;
        at = end;
    }
    return false;
}

// OK, or why the headers cannot be used; by one thread. A block has `side` samples a side.
DEVICE i32 read_header(const u8* header, const Crop& crop, i32 side, Tables& tables) {
    if (!read_markers(header, (i32)crop.header_size, tables)) return NOT_DECODABLE;
    bool same = tables.height == crop.level_height && tables.width == crop.level_width;
    same = same && side * tables.luma_rows == crop.mcu_height && side * tables.luma_columns == crop.mcu_width;
    return same ? OK : WRONG_SIZE;
}

// A code's length and its symbol in the form of `Tables.lookup`.
DEVICE u32 entry_of(i32 length, i32 symbol, bool is_ac) {
    i32 run = symbol >> 4, size = symbol & 15;
    if (is_ac && size == 0 && run < 15) run = END_OF_BLOCK;
    return (u32)(length | size << 5 | run << 9);
}

// The entry of the first code of `low` to `high` bits that the 16 bits `code` begin with; 0 if there is none.
DEVICE u32 find_code(const Tables& tables, i32 number, i32 code, i32 low, i32 high) {
    i32 length = low;
    while (length <= high && code >= tables.limit[number][length]) length++;
    if (length > high) return 0;
    i32 rank = (code >> (16 - length)) + tables.offset[number][length];
    return entry_of(length, tables.symbols[number][rank & 255], number & 1);
}

// Copies steps and symbols of the headers that were read. All threads.
DEVICE void copy_tables(const u8* header, Tables& tables) {
    FOR_THREADS(k, 4 * 64) {
        i32 at = tables.steps_at[k >> 6];
        if (at) tables.steps[k] = (u32)header[at + (k & 63)] << 8 | SCAN_ORDER[k & 63];
    }
    FOR_THREADS(k, 4 * 256) {
        i32 number = k >> 8, rank = k & 255;
        bool used = tables.codes_at[number] && rank < tables.num_symbols[number];
        tables.symbols[number][rank] = used ? header[tables.codes_at[number] + rank] : 0;
    }
}

// Fills the lookups, after a barrier. All threads.
DEVICE void fill_lookups(Tables& tables) {
    FOR_THREADS(k, 4 * LOOKUP_SIZE) {
        i32 number = k >> LOOKUP_BITS, code = (k & (LOOKUP_SIZE - 1)) << (16 - LOOKUP_BITS);
        if (tables.codes_at[number]) tables.lookup[k] = (u16)find_code(tables, number, code, 1, LOOKUP_BITS);
    }
}

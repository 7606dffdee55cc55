// Kernel decode_segments: headers, tables, entropy decoding and inverse DCT, into planes in scratch.
//
// Blocks: x is the crop; the blocks along y share its segments. A block reads the headers into tables of its own, and
// then takes 128 segments at a time. Each thread decodes one of them. The threads of a block wait for each other only
// between these steps.
#pragma once
#include "entropy.cuh"

#ifndef STAGE_WORDS
#define STAGE_WORDS 4096   // room for segments without their stuffed zeros, 16 KB
#endif
#define HEADER_ROOM (2 * 64 * BLOCK_THREADS)  // headers up to this size are read from shared memory

static_assert(STAGE_WORDS >= MAX_SEGMENT_WORDS + 3, "the largest segment fits the stage");

// Sums up to and with each of 128 elements, in log2(128) steps. `a` has two rows; returns the one with the result.
DEVICE u32* prefix_sums(u32 (*a)[BLOCK_THREADS]) {
    i32 from = 0;
    for (i32 step = 1; step < BLOCK_THREADS; step *= 2, from ^= 1) {
        BARRIER;
        FOR_THREADS(k, BLOCK_THREADS) a[from ^ 1][k] = a[from][k] + (k >= step ? a[from][k - step] : 0);
    }
    BARRIER;
    return a[from];
}

DEVICE i32 length_of(const u8* index, i64 k) { return index[2 * k] | index[2 * k + 1] << 8; }

// Sum of the lengths [begin, end). The host has checked that all of them together are below 2**32.
DEVICE u32 sum_lengths(const u8* index, i64 begin, i64 end) {
    u32 total = 0;
    for (i64 k = begin; k < end; k++) total += (u32)length_of(index, k);
    return total;
}

// Reads the headers into the tables; all threads. A block has `side` samples a side. `room` is shared memory, which is
// free again afterwards.
DEVICE void make_tables(const u8* header, const Crop& crop, i32 side, Tables& tables, u8* room) {
    if (crop.header_size <= HEADER_ROOM) {
        FOR_THREADS(k, (i32)crop.header_size) room[k] = header[k];
        header = room;
    }
    BARRIER;
    ONE_THREAD tables.error = read_header(header, crop, side, tables);
    BARRIER;
    if (tables.error == OK) copy_tables(header, tables);
    BARRIER;
    if (tables.error == OK) fill_lookups(tables);
}

// Lengths that each thread sums up for the positions.
DEVICE i64 lengths_per_run(const Crop& crop) {
    return ((crop.rows - 1) * crop.index_columns + crop.columns + BLOCK_THREADS - 1) / BLOCK_THREADS;
}

// Finds segment n of the window and checks its marker. `run_ends` is from Tables.before.
DEVICE void locate(const Batch& batch, const Crop& crop, const u32* run_ends, i32 n, i32 lane, Tables& tables) {
    const u8 *index = batch.bytes + crop.index, *data = batch.bytes + crop.data;
    i64 row = n / (i32)crop.columns, column = n - row * crop.columns, k = row * crop.index_columns + column;
    i64 per_run = lengths_per_run(crop), run = k / per_run;
    i64 at = (i64)((run > 0 ? run_ends[run - 1] : 0) + sum_lengths(index, run * per_run, k));
    i64 segment = crop.first_segment + row * crop.level_columns + column;
    i32 length = length_of(index, k) - 2, expected = segment == crop.last_segment ? 0xD9 : 0xD0 + (i32)(segment & 7);
    bool valid = length >= 0 && crop.data + at + length + 2 <= crop.data_end;
    valid = valid && data[at + length] == 0xFF && data[at + length + 1] == expected;
    tables.at[lane] = (u32)at, tables.length[lane] = valid ? length : -1;
    tables.words[0][lane] = valid ? stage_words(length) : 0;
}

KERNEL(BLOCK_THREADS, 8) decode_segments(Batch batch) {
    SHARED Tables tables;
    SHARED i16 coefficients[64 * BLOCK_THREADS];
    SHARED u32 stage[STAGE_WORDS + MAX_BLOCK_WORDS + 2];  // what a damaged block reads beyond the last segment
    Crop& crop = batch.crops[BLOCK_X];
    i64& code = batch.codes[BLOCK_X];  // not read here, because another block may write it
    i32 wanted = (i32)(crop.rows * crop.columns), columns = (i32)crop.columns;
    if (BLOCK_Y * BLOCK_THREADS >= wanted) return;
    const u8* index = batch.bytes + crop.index;
    i64 per_run = lengths_per_run(crop), num_lengths = (crop.rows - 1) * crop.index_columns + crop.columns;
    FOR_THREADS(k, BLOCK_THREADS) {
        tables.before[0][k] = sum_lengths(index, k * per_run, at_most((k + 1) * per_run, num_lengths));
    }
    make_tables(batch.bytes + crop.header, crop, 8, tables, (u8*)coefficients);
    const u32* run_ends = prefix_sums(tables.before);
    if (tables.error != OK) {
        ONE_THREAD MARK_BAD(code, tables.error);
        return;
    }
    FOR_THREADS(k, 64 * BLOCK_THREADS / 2) ((u32*)coefficients)[k] = 0;
    ONE_THREAD {
        if (BLOCK_Y == 0) crop.gray = tables.num_components == 1;
    }
    for (i32 base = BLOCK_Y * BLOCK_THREADS; base < wanted; base += NUM_BLOCKS_Y * BLOCK_THREADS) {
        i32 end = at_most(base + BLOCK_THREADS, wanted);
        for (i32 from = base; from < end; from += tables.num_fitting) {  // once, unless the stage is too small
            FOR_THREADS(lane, BLOCK_THREADS) {  // each thread its own, so no barrier is needed before
                tables.words[0][lane] = 0;
                if (from + lane < end) locate(batch, crop, run_ends, from + lane, lane, tables);
            }
            const u32* words = prefix_sums(tables.words);
            FOR_THREADS(lane, end - from) {
                bool last = from + lane + 1 == end || words[lane + 1] > STAGE_WORDS;
                if (last && words[lane] <= STAGE_WORDS) tables.num_fitting = lane + 1;
            }
            BARRIER;
            FOR_THREADS(lane, tables.num_fitting) {
                i32& length = tables.length[lane];
                if (length < 0) {
                    MARK_BAD(code, BAD_INDEX);
                } else {
                    const u8* data = batch.bytes + crop.data + tables.at[lane];
                    length = unstuff(data, length, stage + (lane ? words[lane - 1] : 0));
                    if (length < 0) MARK_BAD(code, NOT_DECODABLE);
                }
            }
            BARRIER;
            FOR_THREADS(lane, tables.num_fitting) {
                i32 row = (from + lane) / columns, mcu = (from + lane - row * columns) * (i32)crop.interval;
                const u32* bits = stage + (lane ? words[lane - 1] : 0);
                i16* block = coefficients + (LANE_STEP > 1 ? lane : 0);
                i32 length = tables.length[lane];
                if (length >= 0 && !decode_segment(bits, length, tables, crop, batch.scratch, row, mcu, block)) {
                    MARK_BAD(code, NOT_DECODABLE);
                }
            }
        }
    }
}

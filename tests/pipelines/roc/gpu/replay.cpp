// Runs the kernels on a batch of `replay.write_batch` and compares its images; for sanitizers. Each array has its exact
// size, so that AddressSanitizer sees every access outside. With REAL_THREADS, 128 threads run each block, so that
// ThreadSanitizer sees every access that no barrier separates from another thread's.
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "decoder.cu"

template <class T>
static std::vector<T> read_array(FILE* file, size_t num) {
    std::vector<T> array(num);
    if (fread(array.data(), sizeof(T), num, file) != num) exit(3);
    return array;
}

static void run_blocks(void (*kernel)(Batch), const Batch& batch, int num_blocks_x, int num_blocks_y) {
    for (g_block_y = num_blocks_y - 1; g_block_y >= 0; g_block_y--) {
        for (g_block_x = num_blocks_x - 1; g_block_x >= 0; g_block_x--) {
            kernel(batch);
            BARRIER;
        }
    }
}

static void launch(void (*kernel)(Batch), const Batch& batch, int num_blocks_x, int num_blocks_y) {
    g_num_blocks_y = num_blocks_y;
#ifdef REAL_THREADS
    g_num_threads = 128;
    for (auto& barrier : g_barriers) pthread_barrier_init(&barrier, nullptr, (unsigned)g_num_threads);
    std::vector<std::thread> threads;
    for (int t = 0; t < g_num_threads; t++) {
        threads.emplace_back([=] {
            g_thread = t;
            run_blocks(kernel, batch, num_blocks_x, num_blocks_y);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (auto& barrier : g_barriers) pthread_barrier_destroy(&barrier);
#else
    run_blocks(kernel, batch, num_blocks_x, num_blocks_y);
#endif
}

int main(int, char** arguments) {
    FILE* file = fopen(arguments[1], "rb");
    // crops, resolution, bytes, scratch, blocks along y of two kernels, whether they are crops by an index
    std::vector<i64> sizes = read_array<i64>(file, 7);
    size_t num = (size_t)sizes[0], resolution = (size_t)sizes[1], image = 3 * resolution * resolution;
    std::vector<Crop> crops = read_array<Crop>(file, num);
    std::vector<double> boxes = read_array<double>(file, 4 * num);
    std::vector<i64> codes = read_array<i64>(file, num);
    std::vector<u8> bytes = read_array<u8>(file, (size_t)sizes[2]);
    std::vector<i64> expected_codes = read_array<i64>(file, num);
    std::vector<u8> expected = read_array<u8>(file, image * num), out(image * num), scratch((size_t)sizes[3]);
    Batch batch = {bytes.data(), crops.data(), boxes.data(), scratch.data(), out.data(), codes.data(), (i32)num,
                   (i32)resolution, 0, {0, 0, 0}, {0, 0, 0}};
    launch(fill_taps, batch, (int)num, 1);
    launch(sizes[6] ? decode_indexed : decode_segments, batch, (int)num, (int)sizes[4]);
    launch(resample, batch, (int)num, (int)sizes[5]);
    launch(resample_bicubic, batch, (int)num, (int)sizes[5]);
    size_t wrong = 0;
    for (size_t i = 0; i < num; i++) {
        bool same = (expected_codes[i] == OK) == (codes[i] == OK);
        if (same && codes[i] == OK) same = memcmp(&expected[image * i], &out[image * i], image) == 0;
        wrong += !same;
    }
    printf("%zu crops, %zu differ\n", num, wrong);
    return wrong > 0;
}

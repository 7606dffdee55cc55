// The words in which the kernels are written, for three compilers.
//
//   NVRTC                  kernels for a GPU
//   g++                    functions: one thread does the work of all threads of a block, loop by loop
//   g++ -DREAL_THREADS     functions that as many threads call as a block has, for ThreadSanitizer
//
// So that all three compute the same: no variable lives across a BARRIER except in shared memory or if it is equal in
// all threads, there are no warp intrinsics, and floating-point products are not fused into sums (--fmad=false for
// NVRTC, -ffp-contract=off for g++).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef short i16;
typedef int i32;
typedef long long i64;

#ifdef __CUDACC_RTC__
#define ON_GPU 1
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define CONSTANT static __constant__
#define SHARED __shared__
// `blocks` are resident on a multiprocessor at a time; with `threads` this bounds the registers of a thread.
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define BLOCK_X ((i32)blockIdx.x)
#define BLOCK_Y ((i32)blockIdx.y)
#define NUM_BLOCKS_Y ((i32)gridDim.y)
#define FOR_THREADS(i, n) for (i32 i = (i32)threadIdx.x; i < (n); i += (i32)blockDim.x)
#define ONE_THREAD if (threadIdx.x == 0)
#define BARRIER __syncthreads()
#define MARK_BAD(place, code) atomicMax(&(place), (i64)(code))
#define KEEP_LOOP _Pragma("unroll 1")
#else
#include <cmath>
#include <cstring>
#define ON_GPU 0
#define KEEP_LOOP
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define CONSTANT static const
#define SHARED static
#define KERNEL(threads, blocks) extern "C" void
#ifdef REAL_THREADS
#include <pthread.h>
#define FOR_EACH_THREAD thread_local
// Two in turn: ThreadSanitizer takes what a fast thread did before its next wait as known to a slow one that only now
// leaves the same barrier.
static pthread_barrier_t g_barriers[2];
static thread_local u32 g_num_waits;
static i32 g_num_threads;
static thread_local i32 g_thread;
#define FOR_THREADS(i, n) for (i32 i = g_thread; i < (n); i += g_num_threads)
#define ONE_THREAD if (g_thread == 0)
#define BARRIER pthread_barrier_wait(&g_barriers[g_num_waits++ & 1])
#define MARK_BAD(place, code) __atomic_store_n(&(place), (i64)(code), __ATOMIC_RELAXED)
#else
#define FOR_EACH_THREAD
#define FOR_THREADS(i, n) for (i32 i = 0; i < (n); i++)
#define ONE_THREAD
#define BARRIER
#define MARK_BAD(place, code) ((place) = (code))
#endif
static FOR_EACH_THREAD i32 g_block_x, g_block_y;
static i32 g_num_blocks_y;
#define BLOCK_X g_block_x
#define BLOCK_Y g_block_y
#define NUM_BLOCKS_Y g_num_blocks_y
#endif

template <class T>
DEVICE T at_least(T value, T low) {
    return value < low ? low : value;
}

template <class T>
DEVICE T at_most(T value, T high) {
    return value > high ? high : value;
}

// The first 32 bits of the 64-bit number (high, low) << shift, shift in [0, 31].
DEVICE u32 window_of(u32 high, u32 low, u32 shift) {
#if ON_GPU
    return __funnelshift_l(low, high, shift);
#else
    return (u32)(((u64)high << 32 | low) << shift >> 32);
#endif
}

// Four bytes as a number, the first one lowest. The GPU reads the two aligned words around them.
DEVICE u32 four_bytes(const u8* p) {
#if ON_GPU
    const u32* word = (const u32*)((u64)p & ~(u64)3);
    return __funnelshift_r(__ldg(word), __ldg(word + 1), 8 * (u32)((u64)p & 3));
#else
    u32 word;
    memcpy(&word, p, 4);
    return word;
#endif
}

DEVICE u32 swap_bytes(u32 word) {
#if ON_GPU
    return __byte_perm(word, 0, 0x0123);
#else
    return __builtin_bswap32(word);
#endif
}

// Number of zero bits below the lowest one; `word` is not 0.
DEVICE i32 trailing_zeros(u32 word) {
#if ON_GPU
    return __ffs((i32)word) - 1;
#else
    return __builtin_ctz(word);
#endif
}

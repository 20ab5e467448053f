// What the kernels take from their platform: a GPU here; the emulator of the tests has the same names (tests/support).
#pragma once

// Which kernels are wanted; both where nothing is said.
#ifndef MATCAPS_FORWARD
#define MATCAPS_FORWARD 1
#endif
#ifndef MATCAPS_BACKWARD
#define MATCAPS_BACKWARD 1
#endif

#ifdef MATCAPS_EMULATED
#include "emulator.h"
#else

#define KERNEL extern "C" __global__
#define DEVICE __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define UNROLL_CHILDREN _Pragma("unroll kUnroll")

DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

// Starts a copy of 4, 8 or 16 bytes from global to shared memory; after wait_for_copies it is there.
template <int kBytes>
DEVICE void start_copy(void* to, const void* from) {
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(kBytes) : "memory");
}

// Waits until all of this thread's copies are there.
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The value of the thread whose number in the warp differs in the bits of the mask.
DEVICE float of_neighbour(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE double of_neighbour(double value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// A product that no sum is contracted with.
DEVICE float product(float x, float y) { return __fmul_rn(x, y); }
DEVICE double product(double x, double y) { return __dmul_rn(x, y); }

DEVICE void synchronise() { __syncthreads(); }
DEVICE bool any_of_block(bool value) { return __syncthreads_or(value); }

#endif

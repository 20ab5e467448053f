// The plain C interface of the operator's CPU core: the only thing that the Python side knows.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MATCAPS_EXPORT __declspec(dllexport)
#else
#define MATCAPS_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever these functions, the layout of matcaps_problem or that of the saved state change.
#define MATCAPS_ABI 4

// One routing of a batch. All tensors are contiguous, in float or (double_precision) double.
typedef struct matcaps_problem {
  int64_t batch, height, width, child_types, parent_types, kernel_size, stride, iterations;
  int32_t one_window;         // class capsules: every child of the map, weights shared over positions
  int32_t child_competition;  // 0: among the parents of one window
  int32_t activation_rule;    // 0: the paper's; 1: standardised; 2: relative
  int32_t double_precision;
  int32_t threads;
  int32_t reserved;
  double variance_floor, annealing;

  const void* poses;                // [B, H, W, I, 16]
  const void* activations;          // [B, H, W, I]
  const void* weight;               // [K, K, I, J, 16], or [I, J, 16]
  const void* beta_use;             // [J]
  const void* beta_activation;      // [J]
  const void* inverse_temperature;  // [T]
  const void* coordinates;          // [H, W, 16] or null; class capsules only

  void* state;           // [B, matcaps_state_size()], written forward and read backward; null: not kept
  void* out_poses;       // [B, H', W', J, 16]
  void* out_activations; // [B, H', W', J]

  const void* grad_out_poses;
  const void* grad_out_activations;
  void* grad_poses;
  void* grad_activations;
  void* grad_weight;
  void* grad_beta_use;
  void* grad_beta_activation;
  void* grad_inverse_temperature;
  void* grad_coordinates;  // null: not wanted
} matcaps_problem;

// How the core starts threads: GOMP_parallel of the OpenMP runtime that the caller already uses, or null for its own.
typedef void (*matcaps_fork)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

MATCAPS_EXPORT int matcaps_abi(void);
// "avx512", "avx2", "neon" or "baseline": the code chosen for this machine.
MATCAPS_EXPORT const char* matcaps_target(void);
// Chooses another target, for tests; 0 if this machine or this build lacks it.
MATCAPS_EXPORT int matcaps_set_target(const char* name);
MATCAPS_EXPORT void matcaps_set_fork(matcaps_fork fork);
// Elements of state that one image needs, whatever the target.
MATCAPS_EXPORT int64_t matcaps_state_size(const matcaps_problem* problem);
// Parents side by side in a vector of the present target: what one needs to read the state (ForwardImage in job.h).
MATCAPS_EXPORT int64_t matcaps_lanes(int double_precision);

// Return 0, or put a message into error and return something else.
MATCAPS_EXPORT int matcaps_forward(const matcaps_problem* problem, char* error, size_t error_size);
MATCAPS_EXPORT int matcaps_backward(const matcaps_problem* problem, char* error, size_t error_size);

// For tests and measurements.
MATCAPS_EXPORT int matcaps_fail_in_task(int threads, char* error, size_t error_size);
// Operations a second of fused multiply-adds, of which each four load so many vectors (0 to 4) out of `bytes` of memory.
MATCAPS_EXPORT int matcaps_fma_peak(int threads, int double_precision, int loads, int64_t bytes, double seconds,
                                    double* flops_per_second, char* error, size_t error_size);
MATCAPS_EXPORT void matcaps_exp(const void* from, void* to, int64_t count, int double_precision);
MATCAPS_EXPORT void matcaps_log(const void* from, void* to, int64_t count, int double_precision);

#ifdef __cplusplus
}
#endif

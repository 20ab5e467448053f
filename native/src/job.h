// What the driver and the kernels tell one another: plain data, no code, so that no function of the kernels' targets
// can be shared by the linker.
#pragma once

#include <stdint.h>

// Children whose sums are formed at a time: shorter sums round less, and their matrices stay near for a second look.
constexpr int64_t kChunk = 16;

// One record for each window and block of parents, in vectors of `lanes` parents.
enum : int64_t {
  kMean = 0,           // 16 vectors
  kSpread = 16,        // 16: the variance without its floor
  kMass = 32,
  kDescription = 33,   // cost = mass * description; under the relative rule less what is usual in the window
  kEvidence = 34,      // what the inverse temperature multiplies
  kLogActivation = 35,
  kRecord = 36,
};

// The gradients of such a record.
enum : int64_t {
  kGradMean = 0,       // 16
  kGradVariance = 16,  // 16
  kGradCost = 32,
  kLogitSum = 33,      // sum over the children of the gradient of the logits
  kGradRecord = 34,
};

template <class Real>
struct Job {
  int64_t batch, height, width, child_types, parent_types, kernel_size, stride, iterations;
  int64_t out_height, out_width, windows;
  int64_t children;       // of one window
  int64_t weight_period;  // children after which the weights repeat
  int64_t lanes, blocks;  // parents side by side in a vector; vectors that hold all parents
  bool one_window, child_competition, standardised, relative;
  Real variance_floor, annealing;
  const Real* poses;
  const Real* activations;
  const Real* weight;           // packed: [child][block][16][lanes], children of one weight period
  const Real* beta_use;         // padded to whole vectors
  const Real* beta_activation;  // padded
  const Real* inverse_temperature;
  const Real* coordinates;
  const Real* uniform;          // [H, W, I] the first assignment
};

template <class Real>
struct ForwardImage {
  const Real* poses;
  const Real* activations;
  Real* assignment;  // [iteration 1...][window][block][child][lanes]; first the log-densities, then the assignment
  Real* statistics;  // [iteration][window][block][kRecord][lanes]
  int64_t assignment_step, statistics_step;  // from one iteration to the next; 0 where earlier ones are not kept
  Real* out_poses;
  Real* out_activations;
};

template <class Real>
struct BackwardImage {
  const Real* poses;
  const Real* activations;
  const Real* assignment;
  const Real* statistics;
  const Real* grad_out_poses;
  const Real* grad_out_activations;
  Real* grad_logit;   // [iteration][window][block][child][lanes]; first the gradient of R·a, then of the logits
  Real* grad_record;  // [iteration][window][block][kGradRecord][lanes]
};

// Where one task adds up what it contributes to gradients that tasks share.
template <class Real>
struct Sums {
  Real* grad_poses;        // of the image at hand
  Real* grad_activations;  // of the image at hand
  Real* grad_weight;       // packed
  double* grad_beta_use;
  double* grad_beta_activation;
  double* grad_inverse_temperature;
  double* grad_coordinates;  // or null
};

// Working memory of one task.
template <class Real>
struct Scratch {
  Real* poses;        // [child][16], of one window
  Real* activations;  // [child]
  Real* uniform;      // [child]
  Real* grad_poses;   // [child][16]
  Real* grad_activations;
  Real* factors;      // [16][iteration][4][lanes]
  Real* data;         // [iteration][children at a time][lanes]
  Real* parents;      // [4][blocks * lanes]
  const Real** places;  // [2 * K * K] see compete.h
};

template <class Real>
struct Kernels {
  int64_t lanes;
  void (*pack_weight)(const Job<Real>&, const Real* weight, Real* packed, int64_t begin, int64_t end);
  void (*unpack_weight)(const Job<Real>&, const Real* const* packed, int64_t count, Real* weight, int64_t begin,
                        int64_t end);
  // Forward: the M-step of windows [begin, end), and their log-densities unless it is the last iteration.
  void (*m_step)(const Job<Real>&, const ForwardImage<Real>&, int64_t t, int64_t begin, int64_t end, Scratch<Real>&);
  void (*activate)(const Job<Real>&, const ForwardImage<Real>&, int64_t t, int64_t begin, int64_t end,
                   Scratch<Real>&);
  void (*compete)(const Job<Real>&, const ForwardImage<Real>&, int64_t t, int64_t begin_row, int64_t end_row,
                  Scratch<Real>&);
  void (*windows_forward)(const Job<Real>&, const ForwardImage<Real>&, int64_t begin, int64_t end, Scratch<Real>&);
  // Backward, in reverse.
  void (*activate_backward)(const Job<Real>&, const BackwardImage<Real>&, const Sums<Real>&, int64_t t, int64_t begin,
                            int64_t end, Scratch<Real>&);
  void (*m_step_backward)(const Job<Real>&, const BackwardImage<Real>&, const Sums<Real>&, int64_t t, int64_t begin,
                          int64_t end, Scratch<Real>&);
  void (*compete_backward)(const Job<Real>&, const BackwardImage<Real>&, const Sums<Real>&, int64_t t,
                           int64_t begin_row, int64_t end_row, Scratch<Real>&);
  void (*windows_backward)(const Job<Real>&, const BackwardImage<Real>&, const Sums<Real>&, int64_t begin, int64_t end,
                           Scratch<Real>&);
  void (*exp)(const Real* from, Real* to, int64_t count);
  void (*log)(const Real* from, Real* to, int64_t count);
  // So many loads of `count` numbers of data with each four multiply-adds; returns the floating-point operations done.
  double (*fma_burst)(const Real* data, int64_t count, int loads, int64_t rounds);
};

struct Target {
  const char* name;
  Kernels<float> single_precision;
  Kernels<double> double_precision;
};

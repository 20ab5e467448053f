// The last sweep over the votes of a window: their gradient from all iterations at once, and from it the gradients of
// the poses and of the matrices.
#pragma once

#include "compete.h"
#include "sums.h"

namespace {

// Adds the window's gradients to those of the image, and clears them.
template <class Real>
void scatter(const Job<Real>& job, int64_t window, const Sums<Real>& sums, Scratch<Real>& scratch) {
  for_each_run(job, window, [&](int64_t n, int64_t child, int64_t count) {
    for (int64_t i = 0; i < count * 16; ++i) sums.grad_poses[child * 16 + i] += scratch.grad_poses[n * 16 + i];
    for (int64_t i = 0; i < count; ++i) sums.grad_activations[child + i] += scratch.grad_activations[n + i];
  });
  for (int64_t i = 0; i < job.children * 16; ++i) scratch.grad_poses[i] = 0;
  for (int64_t i = 0; i < job.children; ++i) scratch.grad_activations[i] = 0;
}

// The factors of one row of the pose in one iteration, in the order of their use.
enum { kFactorMean, kFactorGradMean, kFactorTwiceGradVariance, kFactorPrecision, kFactors };

template <class Real, int N>
INLINE Real* factors_of(const Scratch<Real>& scratch, int64_t t, int row) {
  return scratch.factors + (t * 4 + row) * kFactors * 4 * N;
}

template <class Real, int N>
INLINE void prepare_factors(const Job<Real>& job, const BackwardImage<Real>& image, int64_t window, int64_t block,
                            const Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  for (int64_t t = 0; t < job.iterations; ++t) {
    const Real* record =
        image.statistics + t * job.windows * job.blocks * kRecord * N + record_at(job, window, block);
    const Real* grad = image.grad_record + t * grad_records_size(job) + grad_record_at(job, window, block);
    const V mass = L::load(record + kMass * N);
    const auto has_data = mass > Real(kEmptyMass);
    // divided by the mass here, so that the data R·a themselves multiply them
    const V inverse_mass = has_data ? Real(1) / (has_data ? mass : V{} + Real(1)) : V{};
    for (int h = 0; h < 16; ++h) {
      Real* factors = factors_of<Real, N>(scratch, t, h / 4) + h % 4 * N;
      const V inverse = Real(1) / (L::load(record + (kSpread + h) * N) + job.variance_floor);
      L::store(factors + kFactorMean * 4 * N, L::load(record + (kMean + h) * N));
      L::store(factors + kFactorGradMean * 4 * N, L::load(grad + (kGradMean + h) * N) * inverse_mass);
      L::store(factors + kFactorTwiceGradVariance * 4 * N,
               Real(2) * L::load(grad + (kGradVariance + h) * N) * inverse_mass);
      L::store(factors + kFactorPrecision * 4 * N, job.annealing * inverse);
    }
  }
}

// grad[child] of the votes of C children from n on, every iteration's contribution:
// data (grad mean + 2 grad variance D) - grad logit · precision · D, with D = vote - mean
template <class Real, int N, int C>
INLINE void vote_gradients(const Job<Real>& job, const BackwardImage<Real>& image, int64_t at, int64_t n,
                           const Votes<Real, N>& votes, int64_t tile_n, Vector<Real, N> first_data[C],
                           const Scratch<Real>& scratch, Vector<Real, N> grad[C][16]) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t size = assignment_size(job);
  for (int row = 0; row < 4; ++row) {
    V g[C][4]{};
    for (int64_t t = 0; t < job.iterations; ++t) {
      const Real* f = factors_of<Real, N>(scratch, t, row);
      V data[C], logit[C];
      UNROLL for (int i = 0; i < C; ++i) {
        data[i] = t ? L::load(image.assignment + (t - 1) * size + at + (n + i) * N) * scratch.activations[n + i]
                    : first_data[i];
        logit[i] = t + 1 < job.iterations ? L::load(image.grad_logit + t * size + at + (n + i) * N) : V{};
      }
      UNROLL for (int c = 0; c < 4; ++c) {
        const V mean = L::load(f + (kFactorMean * 4 + c) * N);
        const V grad_mean = L::load(f + (kFactorGradMean * 4 + c) * N);
        const V twice = L::load(f + (kFactorTwiceGradVariance * 4 + c) * N);
        const V precision = L::load(f + (kFactorPrecision * 4 + c) * N);
        UNROLL for (int i = 0; i < C; ++i) {
          const V d = L::load(votes.at(row, tile_n + i) + c * N) - mean;
          g[i][c] += data[i] * grad_mean;
          g[i][c] += (data[i] * twice - logit[i] * precision) * d;
        }
      }
    }
    UNROLL for (int i = 0; i < C; ++i)
      UNROLL for (int c = 0; c < 4; ++c) grad[i][row * 4 + c] = g[i][c];
  }
}

// grad pose += grad vote · matrixᵀ, summed over the parents; grad matrix += poseᵀ · grad vote
template <class Real, int N>
INLINE void pose_and_weight_gradients(const Vector<Real, N>* grad, const Real* pose, const Real* weight,
                                      Real* grad_pose, Real* grad_weight) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  for (int row = 0; row < 4; row += 2) {
    V first[4], second[4];
    UNROLL for (int c = 0; c < 4; ++c) {
      UNROLL for (int k = 0; k < 4; ++k) {
        const V w = L::load(weight + (k * 4 + c) * N);
        first[k] = c ? first[k] + grad[row * 4 + c] * w : grad[row * 4] * w;
        second[k] = c ? second[k] + grad[row * 4 + 4 + c] * w : grad[row * 4 + 4] * w;
      }
    }
    add_lane_sums<Real, N>(first, grad_pose + row * 4);
    add_lane_sums<Real, N>(second, grad_pose + row * 4 + 4);
  }
  for (int k = 0; k < 4; k += 2) {
    V first[4], second[4];
    UNROLL for (int c = 0; c < 4; ++c) {
      first[c] = L::load(grad_weight + (k * 4 + c) * N);
      second[c] = L::load(grad_weight + (k * 4 + 4 + c) * N);
    }
    UNROLL for (int row = 0; row < 4; ++row) {
      UNROLL for (int c = 0; c < 4; ++c) {
        first[c] += pose[row * 4 + k] * grad[row * 4 + c];
        second[c] += pose[row * 4 + k + 1] * grad[row * 4 + c];
      }
    }
    UNROLL for (int c = 0; c < 4; ++c) {
      L::store(grad_weight + (k * 4 + c) * N, first[c]);
      L::store(grad_weight + (k * 4 + 4 + c) * N, second[c]);
    }
  }
}

template <class Real, int N, int C>
INLINE void sweep_children(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums,
                           int64_t window, int64_t block, int64_t n, const Votes<Real, N>& votes, int64_t tile_n,
                           const Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V grad[C][16], data[C];
  const Bits<Real, N> parent = is_parent<Real, N>(job, block);
  for (int i = 0; i < C; ++i) {
    const V uniform = parent ? L::all(scratch.uniform[n + i]) : V{};
    data[i] = uniform * scratch.activations[n + i];
    // the first assignment is constant: the gradient of R·a goes to the activation alone
    scratch.grad_activations[n + i] += L::sum(uniform * L::load(scratch.grad_data + (n + i) * N));
  }
  vote_gradients<Real, N, C>(job, image, assignment_at(job, window, block), n, votes, tile_n, data, scratch, grad);
  for (int i = 0; i < C; ++i) {
    const int64_t weight_at = ((n + i) % job.weight_period * job.blocks + block) * 16 * N;
    pose_and_weight_gradients<Real, N>(grad[i], scratch.poses + (n + i) * 16, job.weight + weight_at,
                                       scratch.grad_poses + (n + i) * 16, sums.grad_weight + weight_at);
    if (sums.grad_coordinates)
      for (int h = 0; h < 16; ++h)
        sums.grad_coordinates[(n + i) / job.weight_period * 16 + h] += double(L::sum(grad[i][h]));
  }
}

template <class Real, int N>
void sweep(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t window,
           int64_t block, const Votes<Real, N>& votes, const Scratch<Real>& scratch) {
  prepare_factors<Real, N>(job, image, window, block, scratch);
  for_each_tile<Real, N>(job, scratch.poses, block, votes, true, [&](int64_t begin, int64_t count) {
    int64_t n = 0;
    for (; n + 2 <= count; n += 2)
      sweep_children<Real, N, 2>(job, image, sums, window, block, begin + n, votes, n, scratch);
    if (n < count) sweep_children<Real, N, 1>(job, image, sums, window, block, begin + n, votes, n, scratch);
  });
}

}  // namespace

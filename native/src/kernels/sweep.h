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

// What multiplies data R·a and the gradients of the logits in the gradient of a vote, K·D + O with D = vote - last mean:
// K = sum over t of data_t kData - grad logit_t kLogit,
// O = sum over t of data_t kDataOffset - grad logit_t kLogitOffset.
enum { kData, kDataOffset, kLogit, kLogitOffset, kFactors };

// The factors of component h in iteration t.
template <class Real, int N>
INLINE Real* factors_of(const Job<Real>& job, const Scratch<Real>& scratch, int h, int64_t t) {
  return scratch.factors + (h * job.iterations + t) * kFactors * N;
}

template <class Real, int N>
INLINE void prepare_factors(const Job<Real>& job, const BackwardImage<Real>& image, int64_t window, int64_t block,
                            const Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t records = job.windows * job.blocks * kRecord * N;
  const Real* last = image.statistics + (job.iterations - 1) * records + record_at(job, window, block);
  for (int64_t t = 0; t < job.iterations; ++t) {
    const Real* record = image.statistics + t * records + record_at(job, window, block);
    const Real* grad = image.grad_record + t * grad_records_size(job) + grad_record_at(job, window, block);
    const V mass = L::load(record + kMass * N);
    const auto has_data = mass > Real(kEmptyMass);
    // divided by the mass here, so that the data R·a themselves multiply them
    const V inverse_mass = has_data ? Real(1) / (has_data ? mass : V{} + Real(1)) : V{};
    for (int h = 0; h < 16; ++h) {
      Real* factors = factors_of<Real, N>(job, scratch, h, t);
      const V precision = job.annealing / (L::load(record + (kSpread + h) * N) + job.variance_floor);
      const V twice = Real(2) * L::load(grad + (kGradVariance + h) * N) * inverse_mass;
      const V shift = L::load(last + (kMean + h) * N) - L::load(record + (kMean + h) * N);
      L::store(factors + kData * N, twice);
      L::store(factors + kDataOffset * N, L::load(grad + (kGradMean + h) * N) * inverse_mass + twice * shift);
      L::store(factors + kLogit * N, precision);
      L::store(factors + kLogitOffset * N, precision * shift);
    }
  }
}

// The gradients of the votes of G children from n on, every iteration's contribution; `vote` holds the votes, and then the
// gradients: data (grad mean + 2 grad variance D) - grad logit · precision · D, with D = vote - mean of the iteration.
// T is the number of iterations, or 0: then what multiplies the factors is read again for each component.
template <class Real, int N, int G, int T>
INLINE void vote_gradients(const Job<Real>& job, const Real* grad_logit, const Real* last_mean,
                           const Scratch<Real>& scratch, Vector<Real, N> (*vote)[16]) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t size = assignment_size(job), iterations = T ? T : job.iterations;
  V data[T ? T : 1][G], logit[T ? T : 1][G];
  UNROLL for (int t = 0; t < T; ++t) {
    UNROLL for (int i = 0; i < G; ++i) {
      data[t][i] = L::load_once(scratch.data + (t * G + i) * N);
      if (t + 1 < T) logit[t][i] = L::load_once(grad_logit + t * size + i * N);
    }
  }
  for (int h = 0; h < 16; ++h) {
    V slope[G]{}, offset[G]{};
    const Real* f = factors_of<Real, N>(job, scratch, h, 0);
    UNROLL for (int64_t t = 0; t < iterations; ++t, f += kFactors * N) {
      const V a = L::load_once(f + kData * N), b = L::load_once(f + kDataOffset * N);
      UNROLL for (int i = 0; i < G; ++i) {
        const V d = T ? data[t][i] : L::load_once(scratch.data + (t * G + i) * N);
        slope[i] += d * a;
        offset[i] += d * b;
      }
      if (t + 1 == iterations) break;
      const V c = L::load_once(f + kLogit * N), e = L::load_once(f + kLogitOffset * N);
      UNROLL for (int i = 0; i < G; ++i) {
        const V g = T ? logit[t][i] : L::load_once(grad_logit + t * size + i * N);
        slope[i] -= g * c;
        offset[i] -= g * e;
      }
    }
    const V mean = L::load_once(last_mean + h * N);
    UNROLL for (int i = 0; i < G; ++i) vote[i][h] = slope[i] * (vote[i][h] - mean) + offset[i];
  }
}

// grad pose += grad vote · matrixᵀ, summed over the parents; grad matrix += poseᵀ · grad vote
template <class Real, int N>
INLINE void pose_and_weight_gradients(const Vector<Real, N>* grad, const Real* pose, const Real* weight,
                                      Real* grad_pose, Real* grad_weight) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V sum[16];
  UNROLL for (int k = 0; k < 4; ++k) {
    UNROLL for (int c = 0; c < 4; ++c) {
      const V w = L::load_once(weight + (k * 4 + c) * N);
      V total = L::load(grad_weight + (k * 4 + c) * N);
      UNROLL for (int row = 0; row < 4; ++row) {
        sum[row * 4 + k] = c ? sum[row * 4 + k] + grad[row * 4 + c] * w : grad[row * 4 + c] * w;
        total += pose[row * 4 + k] * grad[row * 4 + c];
      }
      L::store(grad_weight + (k * 4 + c) * N, total);
    }
  }
  add_lane_sums<Real, N>(sum, grad_pose);
}

// What the sweep needs of the first iteration to give the gradient of R·a: constant + D (linear + square D), summed over the
// components, with D = vote - mean.
template <class Real, int N>
struct FirstStep {
  const Real* mean;
  const Real* linear;
  const Real* square;
  Vector<Real, N> constant;
};

template <class Real, int N, int G>
INLINE void sweep_children(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t at,
                           int64_t block, int64_t n, const Real* matrix, const Real* offset,
                           const FirstStep<Real, N>& first, const Real* last_mean, const Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  constexpr int R = kRows<Real, N>;
  V vote[G][16], total[G]{};
  const Bits<Real, N> parent = is_parent<Real, N>(job, block);
  const int64_t size = assignment_size(job), step = job.blocks * 16 * N;
  UNROLL for (int i = 0; i < G; ++i)
    UNROLL for (int row = 0; row < 4; row += R)
      same_vote_rows<Real, N, R>(scratch.poses + (n + i) * 16 + row * 4, matrix + i * step, offset ? offset + row * 4 * N : nullptr,
                                 vote[i] + row * 4);
  for (int row = 0; row < 4; ++row) {
    V sum[G]{};
    UNROLL for (int h = row * 4; h < row * 4 + 4; ++h) {
      const V mean = L::load_once(first.mean + h * N), a = L::load_once(first.linear + h * N);
      const V b = L::load_once(first.square + h * N);
      UNROLL for (int i = 0; i < G; ++i) {
        const V d = vote[i][h] - mean;
        sum[i] += d * (a + b * d);
      }
    }
    UNROLL for (int i = 0; i < G; ++i) total[i] += sum[i];
  }
  for (int i = 0; i < G; ++i) {
    const V uniform = parent ? L::all(scratch.uniform[n + i]) : V{};
    const Real activation = scratch.activations[n + i];
    L::store(scratch.data + i * N, uniform * activation);
    for (int64_t t = 1; t < job.iterations; ++t)
      L::store(scratch.data + (t * G + i) * N,
               L::load(image.assignment + at + (t - 1) * size + (n + i) * N) * activation);
    // the first assignment is constant: the gradient of R·a goes to the activation alone
    scratch.grad_activations[n + i] += L::sum(uniform * (total[i] + first.constant));
  }
  const Real* grad_logit = image.grad_logit + at + n * N;
  switch (job.iterations) {
    case 1: vote_gradients<Real, N, G, 1>(job, grad_logit, last_mean, scratch, vote); break;
    case 2: vote_gradients<Real, N, G, 2>(job, grad_logit, last_mean, scratch, vote); break;
    case 3: vote_gradients<Real, N, G, 3>(job, grad_logit, last_mean, scratch, vote); break;
    default: vote_gradients<Real, N, G, 0>(job, grad_logit, last_mean, scratch, vote);
  }
  const int64_t weight_at = matrix - job.weight;
  for (int i = 0; i < G; ++i) {
    pose_and_weight_gradients<Real, N>(vote[i], scratch.poses + (n + i) * 16, matrix + i * step,
                                       scratch.grad_poses + (n + i) * 16, sums.grad_weight + weight_at + i * step);
    if (sums.grad_coordinates)
      for (int h = 0; h < 16; ++h)
        sums.grad_coordinates[(n + i) / job.weight_period * 16 + h] += double(L::sum(vote[i][h]));
  }
}

template <class Real, int N>
void sweep(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t window,
           int64_t block, const FirstStep<Real, N>& first, const Scratch<Real>& scratch) {
  prepare_factors<Real, N>(job, image, window, block, scratch);
  const int64_t at = assignment_at(job, window, block);
  const Real* last_mean = image.statistics + (job.iterations - 1) * job.windows * job.blocks * kRecord * N +
                          record_at(job, window, block) + kMean * N;
  const Real none[16 * N]{};
  Real offset[16 * N];
  for_each_stretch<Real, N>(
      job, block, 0, job.children, none, job.coordinates ? offset : nullptr, [&](int64_t from, int64_t to, const Real* matrix, const Real* start) {
        for_groups<4>(to - from, [&](auto group, int64_t n) {
          sweep_children<Real, N, decltype(group)::size>(job, image, sums, at, block, from + n,
                                                         matrix + n * job.blocks * 16 * N, start, first, last_mean,
                                                         scratch);
        });
      });
}

}  // namespace

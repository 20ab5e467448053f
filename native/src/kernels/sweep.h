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

// grad[child] of the votes of G children from n on, every iteration's contribution:
// data (grad mean + 2 grad variance D) - grad logit · precision · D, with D = vote - mean
template <class Real, int N, int G>
INLINE void vote_gradients(const Job<Real>& job, const BackwardImage<Real>& image, int64_t at, int64_t n,
                           const Votes<Real, N>& votes, int64_t tile_n, const Vector<Real, N>* first_data,
                           const Real* last_mean, const Scratch<Real>& scratch, Vector<Real, N> (*grad)[16]) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t size = assignment_size(job), last = job.iterations - 1;
  const Real* assignment = image.assignment + at + n * N;
  const Real* grad_logit = image.grad_logit + at + n * N;
  Real* data = scratch.data;  // [iteration][G][lanes]
  for (int64_t t = 0; t <= last; ++t)
    UNROLL for (int i = 0; i < G; ++i)
      L::store(data + (t * G + i) * N, t ? L::load(assignment + (t - 1) * size + i * N) * scratch.activations[n + i]
                                         : first_data[i]);
  for (int h = 0; h < 16; ++h) {
    V slope[G]{}, offset[G]{};
    const Real* f = factors_of<Real, N>(job, scratch, h, 0);
    for (int64_t t = 0; t <= last; ++t, f += kFactors * N) {
      const V a = L::load_once(f + kData * N), b = L::load_once(f + kDataOffset * N);
      UNROLL for (int i = 0; i < G; ++i) {
        const V d = L::load_once(data + (t * G + i) * N);
        slope[i] += d * a;
        offset[i] += d * b;
      }
      if (t == last) break;
      const V c = L::load_once(f + kLogit * N), e = L::load_once(f + kLogitOffset * N);
      UNROLL for (int i = 0; i < G; ++i) {
        const V g = L::load_once(grad_logit + t * size + i * N);
        slope[i] -= g * c;
        offset[i] -= g * e;
      }
    }
    const V mean = L::load(last_mean + h * N);
    UNROLL for (int i = 0; i < G; ++i)
      grad[i][h] = slope[i] * (L::load(votes.at(h / 4, tile_n + i) + h % 4 * N) - mean) + offset[i];
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

template <class Real, int N, int G>
INLINE void sweep_children(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums,
                           int64_t window, int64_t block, int64_t n, const Votes<Real, N>& votes, int64_t tile_n,
                           const Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V grad[G][16], data[G];
  const Bits<Real, N> parent = is_parent<Real, N>(job, block);
  for (int i = 0; i < G; ++i) {
    const V uniform = parent ? L::all(scratch.uniform[n + i]) : V{};
    data[i] = uniform * scratch.activations[n + i];
    // the first assignment is constant: the gradient of R·a goes to the activation alone
    scratch.grad_activations[n + i] += L::sum(uniform * L::load(scratch.grad_data + (n + i) * N));
  }
  const Real* last_mean = image.statistics + (job.iterations - 1) * job.windows * job.blocks * kRecord * N +
                          record_at(job, window, block) + kMean * N;
  vote_gradients<Real, N, G>(job, image, assignment_at(job, window, block), n, votes, tile_n, data, last_mean, scratch,
                             grad);
  for (int i = 0; i < G; ++i) {
    const int64_t weight_at = ((n + i) % job.weight_period * job.blocks + block) * 16 * N;
    pose_and_weight_gradients<Real, N>(grad[i], scratch.poses + (n + i) * 16, job.weight + weight_at,
                                       scratch.grad_poses + (n + i) * 16, sums.grad_weight + weight_at);
    if (sums.grad_coordinates)
      for (int h = 0; h < 16; ++h)
        sums.grad_coordinates[(n + i) / job.weight_period * 16 + h] += double(L::sum(grad[i][h]));
  }
}

// The children [begin, begin + count), whose votes are a chunk.
template <class Real, int N>
void sweep(const Job<Real>& job, const BackwardImage<Real>& image, const Sums<Real>& sums, int64_t window,
           int64_t block, int64_t begin, int64_t count, const Votes<Real, N>& chunk, const Scratch<Real>& scratch) {
  for_groups<4>(count, [&](auto group, int64_t n) {
    sweep_children<Real, N, decltype(group)::size>(job, image, sums, window, block, begin + n, chunk, n, scratch);
  });
}

}  // namespace

// The M-step of a window and the log-densities that follow from it, a block of parents at a time.
#pragma once

#include "functions.h"
#include "votes.h"

namespace {

constexpr double kEmptyMass = 1e-20;
constexpr double kDeviationOffset = 1e-9;

// share = assignment * activation / mass of every child; returns the mass.
template <class Real, int N>
Vector<Real, N> compute_shares(const Job<Real>& job, const Scratch<Real>& scratch, int64_t block,
                               const Real* assignment, Real* share) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const Bits<Real, N> parent = is_parent<Real, N>(job, block);
  Total<V> total;
  for (int64_t begin = 0; begin < job.children; begin += kChunk) {
    const int64_t end = begin + kChunk < job.children ? begin + kChunk : job.children;
    V sum{};
    for (int64_t n = begin; n < end; ++n) {
      const V data = assignment ? L::load(assignment + n * N) * scratch.activations[n]
                                : (parent ? L::all(scratch.uniform[n] * scratch.activations[n]) : V{});
      L::store(share + n * N, data);
      sum += data;
    }
    total.add(sum);
  }
  const V mass = total.sum;
  const auto has_data = mass > Real(kEmptyMass);
  const V inverse = Real(1) / (has_data ? mass : V{} + Real(1));
  for (int64_t n = 0; n < job.children; ++n)
    L::store(share + n * N, has_data ? L::load(share + n * N) * inverse : V{});
  return mass;
}

// Weighted mean of the votes of a few children, or 0: somewhere among the votes.
template <class Real, int N>
INLINE void mean_of_chunk(const Votes<Real, N>& votes, const Real* share, int64_t count, Vector<Real, N>* mean) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V total{};
  for (int64_t n = 0; n < count; ++n) total += L::load(share + n * N);
  const auto has_data = total > Real(0);
  const V inverse = has_data ? Real(1) / (has_data ? total : V{} + Real(1)) : V{};
  for (int row = 0; row < 4; ++row) {
    V sum[4]{};
    for (int64_t n = 0; n < count; ++n) {
      const V s = L::load(share + n * N) * inverse;
      const Real* v = votes.at(row, n);
      UNROLL for (int c = 0; c < 4; ++c) sum[c] += s * L::load(v + c * N);
    }
    UNROLL for (int c = 0; c < 4; ++c) mean[row * 4 + c] = sum[c];
  }
}

// first += sum weight D and second += sum weight D², with D = vote - centre, over a chunk of children
template <class Real, int N>
INLINE void add_moments(const Votes<Real, N>& votes, const Real* weight, int64_t count,
                        const Vector<Real, N>* centre, Total<Vector<Real, N>>* first,
                        Total<Vector<Real, N>>* second) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  for (int row = 0; row < 4; ++row) {
    V m[4], sum[4]{}, squares[4]{};
    UNROLL for (int c = 0; c < 4; ++c) m[c] = centre[row * 4 + c];
    for (int64_t n = 0; n < count; ++n) {
      const V w = L::load_once(weight + n * N);
      const Real* v = votes.at(row, n);
      UNROLL for (int c = 0; c < 4; ++c) {
        const V d = L::load(v + c * N) - m[c];
        const V wd = w * d;
        sum[c] += wd;
        squares[c] += wd * d;
      }
    }
    UNROLL for (int c = 0; c < 4; ++c) {
      first[row * 4 + c].add(sum[c]);
      second[row * 4 + c].add(squares[c]);
    }
  }
}

// out[child] = constant + sum over the components of (vote - mean)^2 * scale
template <class Real, int N>
INLINE void squared_distances(const Votes<Real, N>& votes, int64_t count, const Real* mean,
                              const Vector<Real, N>* scale, Vector<Real, N> constant, Real* out) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  for_groups<4>(count, [&](auto group, int64_t n) {
    constexpr int G = decltype(group)::size;
    V total[G]{};  // apart from the constant, which may be large; each row apart: shorter sums round less
    for (int row = 0; row < 4; ++row) {
      const Real* v = votes.at(row, n);
      V sum[G]{};
      UNROLL for (int c = 0; c < 4; ++c) {
        const V m = L::load_once(mean + (row * 4 + c) * N), s = scale[row * 4 + c];
        UNROLL for (int i = 0; i < G; ++i) {
          const V d = L::load(v + (i * 4 + c) * N) - m;
          sum[i] += (d * d) * s;
        }
      }
      UNROLL for (int i = 0; i < G; ++i) total[i] += sum[i];
    }
    UNROLL for (int i = 0; i < G; ++i) L::store(out + (n + i) * N, total[i] + constant);
  });
}

// Mean and spread (the variance without its floor) of a block's votes, in one visit that takes them relative to a centre:
// the mean of the iteration before, or of the first chunk. A centre that proves further from the mean than a standard
// deviation would cost digits of the spread; then the visit is made once more, about the mean found.
template <class Real, int N>
INLINE void mean_and_spread(const Job<Real>& job, const Scratch<Real>& scratch, int64_t block,
                            const Votes<Real, N>& votes, bool ready, const Real* last_mean, Vector<Real, N>* mean,
                            Vector<Real, N>* spread) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  if (last_mean)
    for (int h = 0; h < 16; ++h) mean[h] = L::load(last_mean + h * N);
  for (int visit = 0; visit < 2; ++visit) {
    Total<V> first[16], second[16];
    for_each_chunk<Real, N>(job, scratch.poses, block, votes, ready,
                            [&](const Votes<Real, N>& chunk, int64_t begin, int64_t count) {
                              const Real* share = scratch.share + begin * N;
                              if (begin == 0 && !visit && !last_mean)
                                mean_of_chunk<Real, N>(chunk, share, count, mean);
                              add_moments<Real, N>(chunk, share, count, mean, first, second);
                            });
    ready = true;
    Bits<Real, N> is_far{};
    for (int h = 0; h < 16; ++h) {
      const V rest = first[h].sum, square = rest * rest;
      spread[h] = second[h].sum - square;
      spread[h] = spread[h] < Real(0) ? V{} : spread[h];  // NaN stays NaN
      mean[h] += rest;
      is_far |= square > spread[h] + job.variance_floor;
    }
    if (!L::any(is_far)) break;
  }
}

template <class Real, int N>
void m_step_of_block(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t window, int64_t block,
                     bool ready, Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const Votes<Real, N> votes = votes_of_block<Real, N>(job, scratch, block);
  Real* record = image.statistics + t * image.statistics_step + record_at(job, window, block);
  const int64_t at = assignment_at(job, window, block);
  const Real* assignment = t ? image.assignment + (t - 1) * image.assignment_step + at : nullptr;
  const V mass = compute_shares<Real, N>(job, scratch, block, assignment, scratch.share);

  V mean[16], spread[16];
  const Real* last_mean = t ? record - image.statistics_step + kMean * N : nullptr;
  mean_and_spread<Real, N>(job, scratch, block, votes, ready, last_mean, mean, spread);

  V log_sum[4]{}, scale[16];
  for (int h = 0; h < 16; ++h) {
    L::store(record + (kMean + h) * N, mass > Real(kEmptyMass) ? mean[h] : V{} * mean[h]);
    L::store(record + (kSpread + h) * N, spread[h]);
    const V variance = spread[h] + job.variance_floor;
    log_sum[h % 4] += logarithm<Real, N>(variance);
    scale[h] = (Real(-0.5) * job.annealing) / variance;
  }
  const V log_determinant = (log_sum[0] + log_sum[1]) + (log_sum[2] + log_sum[3]);
  L::store(record + kMass * N, mass);
  L::store(record + kDescription * N, Real(16) * L::load(job.beta_use + block * N) + Real(0.5) * log_determinant);
  if (t + 1 == job.iterations) return;

  Real* out = image.assignment + t * image.assignment_step + at;
  const V constant = (Real(-0.5) * job.annealing) * log_determinant;
  for_each_chunk<Real, N>(job, scratch.poses, block, votes, true,
                          [&](const Votes<Real, N>& chunk, int64_t begin, int64_t count) {
                            squared_distances<Real, N>(chunk, count, record + kMean * N, scale, constant,
                                                       out + begin * N);
                          });
}

// Activations of one window's parents, and of the last iteration the results.
template <class Real, int N>
void activate_window(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t window,
                     Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  const int64_t parents = job.parent_types;
  Real* records = image.statistics + t * image.statistics_step + record_at(job, window, 0);
  Real* cost = scratch.parents;
  Real mean_cost = 0, divisor = 1;
  for (int64_t block = 0; block < job.blocks; ++block) {
    const Real* record = records + block * kRecord * N;
    L::store(cost + block * N, L::load(record + kMass * N) * L::load(record + kDescription * N));
  }
  if (job.relative) {  // what a unit of data costs less what it costs, on average over the window's data
    Real data = 0, sum = 0;
    for (int64_t j = 0; j < parents; ++j) {
      data += records[((j / N) * kRecord + kMass) * N + j % N];
      sum += cost[j];
    }
    const Real usual = data > 0 ? sum / data : Real(0);
    for (int64_t block = 0; block < job.blocks; ++block) {
      Real* record = records + block * kRecord * N;
      const V description = L::load(record + kDescription * N) - L::all(usual);
      L::store(record + kDescription * N, description);
      L::store(cost + block * N, L::load(record + kMass * N) * description);
    }
  }
  if (job.standardised) {
    Real sum = 0, squares = 0;
    for (int64_t j = 0; j < parents; ++j) sum += cost[j];
    mean_cost = sum / Real(parents);
    for (int64_t j = 0; j < parents; ++j) squares += (mean_cost - cost[j]) * (mean_cost - cost[j]);
    const Real variance = squares / Real(parents);
    divisor = (variance > 0 ? Real(__builtin_sqrt(variance)) : Real(0) * variance) + Real(kDeviationOffset);
  }
  const Real inverse_temperature = job.inverse_temperature[t];
  for (int64_t block = 0; block < job.blocks; ++block) {
    Real* record = records + block * kRecord * N;
    const V centred = L::all(mean_cost) - L::load(cost + block * N);
    const V evidence = L::load(job.beta_activation + block * N) + (job.standardised ? centred / divisor : centred);
    L::store(record + kEvidence * N, evidence);
    V log, sigmoid;
    log_sigmoid<Real, N>(inverse_temperature * evidence, log, sigmoid);
    L::store(record + kLogActivation * N, log);
    if (t + 1 < job.iterations) continue;
    for (int64_t lane = 0, j = block * N; lane < N && j < parents; ++lane, ++j) {
      image.out_activations[window * parents + j] = sigmoid[lane];
      for (int h = 0; h < 16; ++h) image.out_poses[(window * parents + j) * 16 + h] = record[(kMean + h) * N + lane];
    }
  }
}

template <class Real, int N>
void m_step(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t begin, int64_t end,
            Scratch<Real>& scratch) {
  for (int64_t block = 0; block < job.blocks; ++block) {  // outside: a block's matrices stay in the cache
    for (int64_t window = begin; window < end; ++window) {
      gather(job, image.poses, image.activations, window, scratch);
      m_step_of_block<Real, N>(job, image, t, window, block, false, scratch);
    }
  }
}

template <class Real, int N>
void activate(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t begin, int64_t end,
              Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window) activate_window<Real, N>(job, image, t, window, scratch);
}

}  // namespace

// The M-step of a window and the log-densities that follow from it, a block of parents at a time.
#pragma once

#include "functions.h"
#include "votes.h"

namespace {

constexpr double kEmptyMass = 1e-20;
constexpr double kDeviationOffset = 1e-9;
// Variances: the square of what a centre may be away from the mean, at the cost of three bits of the spread.
constexpr double kFar = 8;

// What weighs the votes in the M-step: R·a, where `assignment` is null the uniform assignment's.
template <class Real, int N>
struct Data {
  const Real* assignment;
  const Real* uniform;
  const Real* activations;
  INLINE Vector<Real, N> operator()(int64_t n) const {
    typedef Lanes<Real, N> L;
    return assignment ? L::load(assignment + n * N) * activations[n] : L::all(uniform[n] * activations[n]);
  }
};

// The sums over a window's children of their weights, of weight D and of weight D², with D = vote - centre.
template <class Real, int N>
struct Moments {
  Total<Vector<Real, N>> weight, first[16], second[16];
};

// Adds those of the children [begin, end), for rows `row` and on of the votes.
template <class Real, int N, class Weight>
APART void add_moments(const Job<Real>& job, const Real* poses, int64_t block, int64_t begin, int64_t end, int row,
                       const Real* centre, Real* start, Weight weight_of, Moments<Real, N>& moments) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  constexpr int R = kRowsOfMoments<Real, N>;
  V weight{}, sum[4 * R]{}, squares[4 * R]{};
  for_each_stretch<Real, N>(
      job, block, begin, end, centre, start, [&](int64_t from, int64_t to, const Real* matrix, const Real* at) {
        for (int64_t n = from; n < to; ++n, matrix += job.blocks * 16 * N) {
          V d[4 * R];
          same_vote_rows<Real, N, R>(poses + n * 16 + row * 4, matrix, at + row * 4 * N, d);
          const V w = weight_of(n);
          weight += w;
          UNROLL for (int i = 0; i < 4 * R; ++i) {
            const V wd = w * d[i];
            sum[i] += wd;
            squares[i] += wd * d[i];
          }
        }
      });
  if (row == 0) moments.weight.add(weight);
  UNROLL for (int i = 0; i < 4 * R; ++i) {
    moments.first[row * 4 + i].add(sum[i]);
    moments.second[row * 4 + i].add(squares[i]);
  }
}

template <class Real, int N, class Weight>
INLINE void moments_about(const Job<Real>& job, const Real* poses, int64_t block, const Real* centre,
                          Weight weight_of, Moments<Real, N>& moments) {
  moments = Moments<Real, N>{};
  Real start[16 * N];
  start_at<Real, N>(centre, nullptr, start);
  for_each_chunk(job, [&](int64_t begin, int64_t end) {
    for (int row = 0; row < 4; row += kRowsOfMoments<Real, N>)
      add_moments<Real, N>(job, poses, block, begin, end, row, centre, start, weight_of, moments);
  });
}

// out[child] = constant + sum over the components h of term(h, D), with D = vote - mean
template <class Real, int N, class Term>
APART void sum_of_components(const Job<Real>& job, const Real* poses, int64_t block, const Real* mean,
                             Vector<Real, N> constant, Real* out, Term term) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  constexpr int R = kRows<Real, N>;
  Real start[16 * N];
  start_at<Real, N>(mean, nullptr, start);
  for_each_stretch<Real, N>(
      job, block, 0, job.children, mean, start, [&](int64_t from, int64_t to, const Real* matrix, const Real* at) {
        for (int64_t n = from; n < to; ++n, matrix += job.blocks * 16 * N) {
          V total{};  // apart from the constant, which may be large; each row apart: shorter sums round less
          UNROLL for (int row = 0; row < 4; row += R) {
            V d[4 * R], sum[R]{};
            vote_rows<Real, N, R>(poses + n * 16 + row * 4, matrix, at + row * 4 * N, d);
            UNROLL for (int i = 0; i < 4 * R; ++i) sum[i / 4] += term(row * 4 + i, d[i]);
            UNROLL for (int r = 0; r < R; ++r) total += sum[r];
          }
          L::store(out + n * N, total + constant);
        }
      });
}

// Mean and spread (the variance without its floor) of a block's votes, and the mass of its data, in one visit that takes
// the votes relative to a centre: the mean of the iteration before, or of the first chunk. A centre that proves too far
// from the mean would cost digits of the spread; then the visit is made once more, about the mean found.
template <class Real, int N>
INLINE void mean_and_spread(const Job<Real>& job, const Real* poses, int64_t block, const Data<Real, N>& data,
                            const Real* last_mean, Vector<Real, N>& mass, Vector<Real, N>* mean,
                            Vector<Real, N>* spread) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  Real centre[16 * N];
  auto mean_of = [](V sum, V mass) {  // where there are data; else 0, or NaN
    const auto has_data = mass > Real(kEmptyMass);
    return sum * (has_data ? Real(1) / (has_data ? mass : V{} + Real(1)) : V{});
  };
  if (last_mean) {
    for (int h = 0; h < 16; ++h) L::store(centre + h * N, L::load(last_mean + h * N));
  } else {
    Moments<Real, N> some;
    Real start[16 * N]{};
    const int64_t end = kChunk < job.children ? kChunk : job.children;
    for (int h = 0; h < 16; ++h) L::store(centre + h * N, V{});
    for (int row = 0; row < 4; row += kRowsOfMoments<Real, N>)
      add_moments<Real, N>(job, poses, block, 0, end, row, centre, start, data, some);
    for (int h = 0; h < 16; ++h) L::store(centre + h * N, mean_of(some.first[h].sum, some.weight.sum));
  }
  Moments<Real, N> moments;
  for (int visit = 0; visit < 2; ++visit) {
    moments_about<Real, N>(job, poses, block, centre, data, moments);
    mass = is_parent<Real, N>(job, block) ? moments.weight.sum : V{};
    if (L::any(mass != mass)) {  // such parents have no data: then a vote is NaN or leaves no trace
      auto known = [&](int64_t n) { return mass == mass ? data(n) : V{}; };
      if (!last_mean)
        for (int h = 0; h < 16; ++h) L::store(centre + h * N, mass == mass ? L::load(centre + h * N) : V{});
      moments_about<Real, N>(job, poses, block, centre, known, moments);
    }
    Bits<Real, N> is_far{};
    for (int h = 0; h < 16; ++h) {
      const V rest = mean_of(moments.first[h].sum, mass), square = rest * rest;
      spread[h] = mean_of(moments.second[h].sum, mass) - square;
      spread[h] = spread[h] < Real(0) ? V{} : spread[h];  // NaN stays NaN
      mean[h] = L::load(centre + h * N) + rest;
      is_far |= square > Real(kFar) * (spread[h] + job.variance_floor);
    }
    if (!L::any(is_far)) break;
    for (int h = 0; h < 16; ++h) L::store(centre + h * N, mean[h]);
  }
}

template <class Real, int N>
void m_step_of_block(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t window, int64_t block,
                     Scratch<Real>& scratch) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  Real* record = image.statistics + t * image.statistics_step + record_at(job, window, block);
  const int64_t at = assignment_at(job, window, block);
  const Real* assignment = t ? image.assignment + (t - 1) * image.assignment_step + at : nullptr;
  V mass, mean[16], spread[16];
  const Real* last_mean = t ? record - image.statistics_step + kMean * N : nullptr;
  const Data<Real, N> data{assignment, scratch.uniform, scratch.activations};
  mean_and_spread<Real, N>(job, scratch.poses, block, data, last_mean, mass, mean, spread);

  V log_sum[4]{};
  Real scale[16 * N];
  for (int h = 0; h < 16; ++h) {
    L::store(record + (kMean + h) * N, mass > Real(kEmptyMass) ? mean[h] : V{} * mean[h]);
    L::store(record + (kSpread + h) * N, spread[h]);
    const V variance = spread[h] + job.variance_floor;
    log_sum[h % 4] += logarithm<Real, N>(variance);
    L::store(scale + h * N, (Real(-0.5) * job.annealing) / variance);
  }
  const V log_determinant = (log_sum[0] + log_sum[1]) + (log_sum[2] + log_sum[3]);
  L::store(record + kMass * N, mass);
  L::store(record + kDescription * N, Real(16) * L::load(job.beta_use + block * N) + Real(0.5) * log_determinant);
  if (t + 1 == job.iterations) return;

  Real* out = image.assignment + t * image.assignment_step + at;
  const V constant = (Real(-0.5) * job.annealing) * log_determinant;
  auto squared_distance = [&scale](int h, V d) { return (d * d) * L::load(scale + h * N); };
  sum_of_components<Real, N>(job, scratch.poses, block, record + kMean * N, constant, out, squared_distance);
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
      m_step_of_block<Real, N>(job, image, t, window, block, scratch);
    }
  }
}

template <class Real, int N>
void activate(const Job<Real>& job, const ForwardImage<Real>& image, int64_t t, int64_t begin, int64_t end,
              Scratch<Real>& scratch) {
  for (int64_t window = begin; window < end; ++window) activate_window<Real, N>(job, image, t, window, scratch);
}

}  // namespace

// All kernels for one instruction set. This file is compiled once for each, with MATCAPS_TARGET and MATCAPS_BYTES (of
// a vector) set. Everything but the table has internal linkage, and nothing of the standard library is used: a function
// shared with other files could be taken by the linker from here and run on a machine that cannot.
#include "backward.h"
#include "pack.h"

namespace {

template <class Real, int N>
void exp_of(const Real* from, Real* to, int64_t count) {
  for (int64_t i = 0; i < count; i += N) {
    Real buffer[N] = {};
    for (int64_t l = 0; l < N && i + l < count; ++l) buffer[l] = from[i + l];
    Lanes<Real, N>::store(buffer, exponential<Real, N>(Lanes<Real, N>::load(buffer)));
    for (int64_t l = 0; l < N && i + l < count; ++l) to[i + l] = buffer[l];
  }
}

template <class Real, int N>
void log_of(const Real* from, Real* to, int64_t count) {
  for (int64_t i = 0; i < count; i += N) {
    Real buffer[N] = {};
    for (int64_t l = 0; l < N && i + l < count; ++l) buffer[l] = from[i + l];
    Lanes<Real, N>::store(buffer, logarithm<Real, N>(Lanes<Real, N>::load(buffer)));
    for (int64_t l = 0; l < N && i + l < count; ++l) to[i + l] = buffer[l];
  }
}

// Twelve independent chains: enough to hide the latency of a fused multiply-add everywhere. Loads of each four multiply-adds
// add a vector of memory in place of one in a register.
template <class Real, int N, int Loads>
double burst(const Real* data, int64_t count, int64_t rounds) {
  typedef Lanes<Real, N> L;
  typedef typename L::V V;
  V x[12];
  for (int i = 0; i < 12; ++i) x[i] = V{} + Real(i);
  const V a = L::kept(V{} + Real(0.999)), b = L::kept(V{} + Real(0.001));
  constexpr int64_t step = 3 * Loads * N;
  int64_t at = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    const Real* from = data + at;
    UNROLL for (int i = 0; i < 12; ++i) {
      V added = b;
      if constexpr (Loads > 0)
        if (i % 4 < Loads) added = L::load_once(from + (i / 4 * Loads + i % 4) * N);
      x[i] = L::kept(x[i] * a + added);
    }
    if constexpr (Loads > 0) {
      at += step;
      if (at + step > count) at = 0;
    }
  }
  V sum{};
  for (int i = 0; i < 12; ++i) sum += x[i];
  volatile Real keep = L::sum(sum);
  (void)keep;
  return double(rounds) * 12 * 2 * N;
}

template <class Real, int N>
double fma_burst(const Real* data, int64_t count, int loads, int64_t rounds) {
  switch (count >= 12 * N ? loads : 0) {
    case 1: return burst<Real, N, 1>(data, count, rounds);
    case 2: return burst<Real, N, 2>(data, count, rounds);
    case 3: return burst<Real, N, 3>(data, count, rounds);
    case 4: return burst<Real, N, 4>(data, count, rounds);
    default: return burst<Real, N, 0>(data, count, rounds);
  }
}

template <class Real, int N>
constexpr Kernels<Real> table() {
  return {N,
          pack_weight<Real, N>,
          unpack_weight<Real, N>,
          m_step<Real, N>,
          activate<Real, N>,
          compete<Real, N>,
          windows_forward<Real, N>,
          activate_backward<Real, N>,
          m_step_backward<Real, N>,
          compete_backward<Real, N>,
          windows_backward<Real, N>,
          exp_of<Real, N>,
          log_of<Real, N>,
          fma_burst<Real, N>};
}

}  // namespace

#define NAME_OF(target) #target
#define STRING(target) NAME_OF(target)
#define JOIN(a, b) a##b
#define TABLE(target) JOIN(matcaps_target_, target)

extern "C" {
extern const Target TABLE(MATCAPS_TARGET);
const Target TABLE(MATCAPS_TARGET) = {STRING(MATCAPS_TARGET), table<float, MATCAPS_BYTES / 4>(),
                                      table<double, MATCAPS_BYTES / 8>()};
}

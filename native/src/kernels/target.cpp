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

// Twelve independent chains: enough to hide the latency of a fused multiply-add everywhere.
template <class Real, int N>
double fma_burst(int64_t rounds) {
  typedef typename Lanes<Real, N>::V V;
  V x[12];
  for (int i = 0; i < 12; ++i) x[i] = V{} + Real(i);
  V a = V{} + Real(0.999), b = V{} + Real(0.001);
  __asm__ volatile("" : : : "memory");
  for (int64_t round = 0; round < rounds; ++round) {
    UNROLL for (int i = 0; i < 12; ++i) x[i] = x[i] * a + b;
    UNROLL for (int i = 0; i < 12; ++i) x[i] = x[i] * a + b;
  }
  V sum{};
  for (int i = 0; i < 12; ++i) sum += x[i];
  volatile Real keep = Lanes<Real, N>::sum(sum);
  (void)keep;
  return double(rounds) * 24 * 2 * N;
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

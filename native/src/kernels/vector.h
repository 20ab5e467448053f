// Vectors of parents: GCC and Clang vector extensions, so that one source serves every instruction set.
#pragma once

#include <stdint.h>

#include "../job.h"

#define INLINE inline __attribute__((always_inline))
// A loop of its own, so that what lives around it takes none of its registers.
#define APART __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

namespace {

template <class Real, int N>
struct VectorOf {
  typedef Real type __attribute__((vector_size(N * sizeof(Real))));
};
template <class Real>
struct BitsOf;
template <>
struct BitsOf<float> {
  typedef int32_t type;
};
template <>
struct BitsOf<double> {
  typedef int64_t type;
};

template <class Real, int N>
using Vector = typename VectorOf<Real, N>::type;
template <class Real, int N>
using Bits = typename VectorOf<typename BitsOf<Real>::type, N>::type;

// Buffers are aligned for the machine, not for every vector length: loads and stores do not assume it.
template <class Real, int N>
struct Lanes {
  typedef Vector<Real, N> V;
  typedef Bits<Real, N> B;
  struct __attribute__((packed, may_alias)) Unaligned {
    V v;
  };
  static INLINE V load(const Real* from) { return reinterpret_cast<const Unaligned*>(from)->v; }
  static INLINE void store(Real* to, V v) { reinterpret_cast<Unaligned*>(to)->v = v; }
  // A value as it is, in a register: nothing that the compiler knows of where it comes from goes into what follows.
  static INLINE V kept(V v) {
#if defined(__x86_64__)
    __asm__("" : "+v"(v));
#elif defined(__aarch64__)
    __asm__("" : "+w"(v));
#endif
    return v;
  }
  // A load that stays in a register. Where one vector meets two others, compilers like to load it twice; loads are then
  // what the loop waits for.
  static INLINE V load_once(const Real* from) { return kept(load(from)); }
  static INLINE V all(Real x) { return x - V{}; }
  static INLINE V maximum(V a, V b) { return a > b ? a : b; }
  static INLINE bool any(B b) {
    typename BitsOf<Real>::type found = 0;
    for (int l = 0; l < N; ++l) found |= b[l];
    return found != 0;
  }
  // Lane l holds l.
  static INLINE V count() {
    V v{};
    for (int l = 0; l < N; ++l) v[l] = Real(l);
    return v;
  }
  static INLINE Real sum(V v) {
    if constexpr (N == 1) {
      return v[0];
    } else {
      const Halves both = {v};
      return Lanes<Real, N / 2>::sum(both.half[0] + both.half[1]);
    }
  }
  static INLINE Real largest(V v) {
    if constexpr (N == 1) {
      return v[0];
    } else {
      const Halves both = {v};
      return Lanes<Real, N / 2>::largest(Lanes<Real, N / 2>::maximum(both.half[0], both.half[1]));
    }
  }

 private:
  union Halves {
    V whole;
    Vector<Real, N / 2 ? N / 2 : 1> half[2];
  };
};

}  // namespace

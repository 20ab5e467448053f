// Sums over the lanes of many vectors at once, by folding halves and transposing small squares.
#pragma once

#include "vector.h"

// Lanes of two vectors by their numbers, a's first. GCC before 12 has it under another name alone.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define shuffled(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef shuffled
#define shuffled(a, b, ...) __builtin_shuffle(a, b, decltype((a) < (b)){__VA_ARGS__})
#endif

namespace {

template <class Real>
struct Fold;

template <>
struct Fold<float> {
  typedef Lanes<float, 4> L;
  typedef L::V V;
  // to[i] += sum of the lanes of from[i], i < 4
  static INLINE void four(const V* from, float* to) {
    const V a = shuffled(from[0], from[1], 0, 4, 1, 5) +
                shuffled(from[0], from[1], 2, 6, 3, 7);
    const V b = shuffled(from[2], from[3], 0, 4, 1, 5) +
                shuffled(from[2], from[3], 2, 6, 3, 7);
    const V sums = shuffled(a, b, 0, 1, 4, 5) + shuffled(a, b, 2, 3, 6, 7);
    L::store(to, L::load(to) + sums);
  }
  static constexpr int width = 4;
};

template <>
struct Fold<double> {
  typedef Lanes<double, 2> L;
  typedef L::V V;
  static INLINE void four(const V* from, double* to) {
    for (int i = 0; i < 4; i += 2) {
      const V sums = shuffled(from[i], from[i + 1], 0, 2) +
                     shuffled(from[i], from[i + 1], 1, 3);
      L::store(to + i, L::load(to + i) + sums);
    }
  }
  static constexpr int width = 2;
};

template <class Real, int N>
INLINE Vector<Real, Fold<Real>::width> fold(Vector<Real, N> v) {
  if constexpr (N == Fold<Real>::width) {
    return v;
  } else {
    union {
      Vector<Real, N> whole;
      Vector<Real, N / 2> half[2];
    } both = {v};
    return fold<Real, N / 2>(both.half[0] + both.half[1]);
  }
}

// to[i] += sum of the lanes of from[i], i < 4
template <class Real, int N>
INLINE void add_lane_sums(const Vector<Real, N>* from, Real* to) {
  const Vector<Real, Fold<Real>::width> folded[4] = {fold<Real, N>(from[0]), fold<Real, N>(from[1]),
                                                     fold<Real, N>(from[2]), fold<Real, N>(from[3])};
  Fold<Real>::four(folded, to);
}

}  // namespace

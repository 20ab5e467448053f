// Sums over the lanes of sixteen vectors at once: halves are folded onto one another, two vectors at a time.
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

template <int...>
struct Numbers {};
template <int N, int... I>
struct NumbersTo : NumbersTo<N - 1, N - 1, I...> {};
template <int... I>
struct NumbersTo<0, I...> {
  typedef Numbers<I...> type;
};

// In every 2 H lanes: the upper H of a added to the lower, and beside them those of b.
template <int H, class V, int... I>
INLINE V folded(V a, V b, Numbers<I...>) {
  constexpr int N = sizeof...(I);
  return shuffled(a, b, (I % (2 * H) < H ? I : N + I)...) +
         shuffled(a, b, (I % (2 * H) < H ? I + H : N + I - H)...);
}

// Puts the sums of the lanes of v[0] ... v[N - 1] into the lanes of v[0].
template <class Real, int N, int H>
INLINE void fold_lanes(Vector<Real, N>* v) {
  UNROLL for (int i = 0; i < H; ++i) v[i] = folded<H>(v[i], v[i + H], typename NumbersTo<N>::type());
  if constexpr (H > 1) fold_lanes<Real, N, H / 2>(v);
}

// to[i] += sum of the lanes of v[i], i < 16; v is used up
template <class Real, int N>
INLINE void add_lane_sums(Vector<Real, N>* v, Real* to) {
  typedef Lanes<Real, N> L;
  UNROLL for (int i = 0; i < 16; i += N) {
    fold_lanes<Real, N, N / 2>(v + i);
    L::store(to + i, L::load(to + i) + v[i]);
  }
}

}  // namespace

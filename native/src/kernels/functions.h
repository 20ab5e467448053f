// exp and log of a vector, to about one unit in the last place over the ranges that the routing meets; see the tests.
#pragma once

#include "vector.h"

namespace {

template <class Real>
struct Constants;

template <>
struct Constants<float> {
  static constexpr float shift = 12582912.0f;  // 1.5 * 2^23: added, it rounds to an integer
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float smallest_exponent = -87.3f, smallest_normal = 1.17549435e-38f;
  static constexpr int mantissa_bits = 23, exp_degree = 7, log_terms = 5;
  static constexpr int32_t bias = 127, mantissa = 0x7fffff, one = 0x3f800000, root_half = 0x3f3504f3;
};

template <>
struct Constants<double> {
  static constexpr double shift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double smallest_exponent = -708.3, smallest_normal = 2.2250738585072014e-308;
  static constexpr int mantissa_bits = 52, exp_degree = 13, log_terms = 11;
  static constexpr int64_t bias = 1023, mantissa = 0xfffffffffffff, one = 0x3ff0000000000000,
                           root_half = 0x3fe6a09e667f3bcd;
};

constexpr double inverse_factorial(int n) { return n < 2 ? 1.0 : inverse_factorial(n - 1) / n; }

// For x up to the logarithm of the largest number; 0 below that of the smallest normal one. NaN stays NaN.
template <class Real, int N>
INLINE Vector<Real, N> exponential(Vector<Real, N> x) {
  typedef Lanes<Real, N> L;
  typedef Constants<Real> C;
  typedef typename L::V V;
  typedef typename L::B B;
  const V low = L::all(C::smallest_exponent);
  const B underflow = x < low;
  x = underflow ? low : x;
  const V shifted = x * Real(1.4426950408889634) + C::shift;
  const V k = shifted - C::shift;
  const V r = (x - k * C::ln2_high) - k * C::ln2_low;
  V p = L::all(Real(inverse_factorial(C::exp_degree)));
  UNROLL for (int n = C::exp_degree - 1; n >= 2; --n) p = p * r + Real(inverse_factorial(n));
  p = p * (r * r) + r + Real(1);
  // The low bits of `shifted` hold k: moved into the exponent they multiply by 2^k.
  const B exponent = (B)shifted << C::mantissa_bits;
  const V result = (V)((B)p + exponent);
  return underflow ? V{} : (x == x ? result : x);
}

// For positive x; denormals count as 0, which gives -infinity.
template <class Real, int N>
INLINE Vector<Real, N> logarithm(Vector<Real, N> x) {
  typedef Lanes<Real, N> L;
  typedef Constants<Real> C;
  typedef typename L::V V;
  typedef typename L::B B;
  // x = 2^e * m, with m between the square roots of 1/2 and 2
  const B offset = (B)x - C::root_half;
  const B exponent = offset >> C::mantissa_bits;
  const V m = (V)((B)x - (exponent << C::mantissa_bits));
  const V e = [&] {  // integer to float, where a small integer sits in the low bits of a large float
    const V magic = L::all(C::shift);
    return (V)(exponent + (B)magic) - C::shift;
  }();
  const V f = m - Real(1);
  const V s = f / (m + Real(1));
  const V z = s * s;
  V p = L::all(Real(2.0 / (2 * C::log_terms + 1)));
  UNROLL for (int n = C::log_terms - 1; n >= 1; --n) p = p * z + Real(2.0 / (2 * n + 1));
  // ln m = 2 atanh(s) = f - s * (f - p * z), which rounds less than 2 s + ...
  const V half = Real(0.5) * f * f;
  const V tail = s * (half + p * z) + e * C::ln2_low;
  V result = e * C::ln2_high + (f - (half - tail));
  const V infinity = L::all(__builtin_inf());
  result = x < C::smallest_normal ? -infinity : result;
  return x < infinity ? result : x;  // NaN and infinity
}

// ln(1 / (1 + exp(-z))), and 1 / (1 + exp(-z))
template <class Real, int N>
INLINE void log_sigmoid(Vector<Real, N> z, Vector<Real, N>& log, Vector<Real, N>& sigmoid) {
  typedef typename Lanes<Real, N>::V V;
  const V small = exponential<Real, N>(z > Real(0) ? -z : z);
  const V one_plus = small + Real(1);
  // log1p: the error of 1 + u is made good to first order
  const V rest = small - (one_plus - Real(1));
  const V log1p = logarithm<Real, N>(one_plus) + rest / one_plus;
  log = (z > Real(0) ? V{} : z) - log1p;
  sigmoid = (z > Real(0) ? V{} + Real(1) : small) / one_plus;
}

}  // namespace

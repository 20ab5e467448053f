#include "matcaps.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <stdexcept>

#include "driver.h"
#include "memory.h"
#include "targets.h"
#include "threads.h"

namespace {

template <class Function>
int guarded(char* error, size_t error_size, Function function) {
  try {
    function();
    return 0;
  } catch (const std::bad_alloc&) {
    std::snprintf(error, error_size, "out of memory");
  } catch (const std::exception& exception) {
    std::snprintf(error, error_size, "%s", exception.what());
  } catch (...) {
    std::snprintf(error, error_size, "unknown error");
  }
  return 1;
}

}  // namespace

int matcaps_abi() { return MATCAPS_ABI; }
const char* matcaps_target() { return matcaps::current_target().name; }
int matcaps_set_target(const char* name) { return matcaps::set_target(name); }
void matcaps_set_fork(matcaps_fork fork) { matcaps::set_fork(fork); }
int64_t matcaps_state_size(const matcaps_problem* problem) { return matcaps::state_size(*problem); }
int64_t matcaps_lanes(int double_precision) {
  return double_precision ? matcaps::kernels<double>().lanes : matcaps::kernels<float>().lanes;
}

int matcaps_forward(const matcaps_problem* problem, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { matcaps::forward(*problem); });
}

int matcaps_backward(const matcaps_problem* problem, char* error, size_t error_size) {
  return guarded(error, error_size, [&] { matcaps::backward(*problem); });
}

int matcaps_fail_in_task(int threads, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    matcaps::parallel(threads, 16, [](int64_t task, int64_t) {
      if (task == 7) throw std::runtime_error("task 7 failed as asked");
    });
  });
}

int matcaps_fma_peak(int threads, int double_precision, int loads, int64_t bytes, double seconds,
                     double* flops_per_second, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    const Target& target = matcaps::current_target();
    std::mutex mutex;
    double rate = 0;
    matcaps::parallel(threads, threads, [&](int64_t, int64_t) {
      typedef std::chrono::steady_clock Clock;
      const matcaps::Buffer<char> data = matcaps::Buffer<char>::zeros(bytes);
      auto burst = [&](const auto& kernels, auto zero) {
        typedef decltype(zero) Real;
        return kernels.fma_burst(reinterpret_cast<const Real*>(data.get()), bytes / int64_t(sizeof(Real)), loads, 20000);
      };
      const Clock::time_point start = Clock::now();
      double flops = 0, elapsed = 0;
      do {
        flops += double_precision ? burst(target.double_precision, double()) : burst(target.single_precision, float());
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
      } while (elapsed < seconds);
      std::lock_guard<std::mutex> lock(mutex);
      rate += flops / elapsed;
    });
    *flops_per_second = rate;
  });
}

void matcaps_exp(const void* from, void* to, int64_t count, int double_precision) {
  if (double_precision)
    matcaps::kernels<double>().exp(static_cast<const double*>(from), static_cast<double*>(to), count);
  else
    matcaps::kernels<float>().exp(static_cast<const float*>(from), static_cast<float*>(to), count);
}

void matcaps_log(const void* from, void* to, int64_t count, int double_precision) {
  if (double_precision)
    matcaps::kernels<double>().log(static_cast<const double*>(from), static_cast<double*>(to), count);
  else
    matcaps::kernels<float>().log(static_cast<const float*>(from), static_cast<float*>(to), count);
}

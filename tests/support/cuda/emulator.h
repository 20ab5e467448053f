// A stand-in for a GPU, for tests: runs a grid's blocks one after the other, and the threads of a block as fibers that take
// turns, or (MATCAPS_EMULATED_THREADS, for the sanitizers) as threads of the operating system. Barriers and shuffles have the
// GPU's meaning; where threads of a block wait for different things, it stops and says so. Shared memory starts as NaN, and
// copies to it happen as late as they may, when they are waited for (under the sanitizers as early as they may).
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#ifdef MATCAPS_EMULATED_THREADS
#include <pthread.h>
#include <thread>
#else
#include <ucontext.h>
#endif

using std::exp;
using std::log;
using std::log1p;
using std::sqrt;

#define KERNEL extern "C"
#define DEVICE inline
#define UNROLL
#define UNROLL_CHILDREN
#define __launch_bounds__(...)

namespace emulator {

struct Dim3 {
  unsigned x = 0, y = 0, z = 0;
};
constexpr int kWarp = 32;
constexpr size_t kStack = 1 << 18;

struct State {
  Dim3 block;
  unsigned char* shared = nullptr;
  int threads = 0;
  std::vector<double> slots;  // two for each thread: of this shuffle and the one before
  int any[2] = {0, 0};
};
inline State& state() {
  static State s;
  return s;
}

#ifdef MATCAPS_EMULATED_THREADS

struct Own {
  unsigned thread = 0, shuffles = 0, ors = 0;
};
inline Own& own() {
  static thread_local Own o;
  return o;
}
inline pthread_barrier_t& block_barrier() {
  static pthread_barrier_t b;
  return b;
}
inline std::vector<pthread_barrier_t>& warp_barriers() {
  static std::vector<pthread_barrier_t> b;
  return b;
}
inline void wait_for_block() { pthread_barrier_wait(&block_barrier()); }
inline void wait_for_warp() { pthread_barrier_wait(&warp_barriers()[own().thread / kWarp]); }

#else

struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Own {
  unsigned thread = 0, shuffles = 0, ors = 0;
  std::vector<Copy> copies;  // that were started and not waited for
  enum { kRuns, kWaitsForBlock, kWaitsForWarp, kDone } status = kRuns;
  ucontext_t context;
  std::vector<char> stack;
};
inline std::vector<Own>& fibers() {
  static std::vector<Own> f;
  return f;
}
inline int& current() {
  static int c = 0;
  return c;
}
inline ucontext_t& scheduler() {
  static ucontext_t c;
  return c;
}
inline Own& own() { return fibers()[current()]; }
inline std::function<void()>& work() {
  static std::function<void()> w;
  return w;
}
inline void enter() {
  work()();
  own().status = Own::kDone;
  swapcontext(&own().context, &scheduler());
}
inline void wait_for_block() {
  own().status = Own::kWaitsForBlock;
  swapcontext(&own().context, &scheduler());
}
inline void wait_for_warp() {
  own().status = Own::kWaitsForWarp;
  swapcontext(&own().context, &scheduler());
}

// Threads that have left a block are not waited for, as on a GPU.
inline void run_block(int threads) {
  auto& all = fibers();
  for (int i = 0; i < threads; ++i) {
    all[i].thread = i;
    all[i].shuffles = all[i].ors = 0;
    all[i].copies.clear();
    all[i].status = Own::kRuns;
    getcontext(&all[i].context);
    all[i].context.uc_stack.ss_sp = all[i].stack.data();
    all[i].context.uc_stack.ss_size = all[i].stack.size();
    all[i].context.uc_link = nullptr;
    makecontext(&all[i].context, reinterpret_cast<void (*)()>(enter), 0);
  }
  for (;;) {
    bool ran = false;
    for (int i = 0; i < threads; ++i)
      if (all[i].status == Own::kRuns) {
        current() = i;
        swapcontext(&scheduler(), &all[i].context);
        ran = true;
      }
    bool all_done = true, all_wait = true;
    for (int first = 0; first < threads; first += kWarp) {
      bool warp_waits = true;
      for (int i = first; i < threads && i < first + kWarp; ++i) {
        all_done = all_done && all[i].status == Own::kDone;
        all_wait = all_wait && (all[i].status == Own::kWaitsForBlock || all[i].status == Own::kDone);
        warp_waits = warp_waits && (all[i].status == Own::kWaitsForWarp || all[i].status == Own::kDone);
      }
      for (int i = first; warp_waits && i < threads && i < first + kWarp; ++i)
        if (all[i].status == Own::kWaitsForWarp) all[i].status = Own::kRuns, ran = true;
    }
    if (all_done) return;
    if (all_wait) {
      for (int i = 0; i < threads; ++i)
        if (all[i].status == Own::kWaitsForBlock) all[i].status = Own::kRuns;
    } else if (!ran) {
      std::fprintf(stderr, "emulator: threads of a block wait for different barriers\n");
      std::abort();
    }
  }
}

#endif

template <class Real>
Real of_neighbour(Real value, int mask) {
  State& s = state();
  Own& o = own();
  double* slots = s.slots.data() + o.shuffles++ % 2 * s.threads;
  slots[o.thread] = value;
  wait_for_warp();
  return Real(slots[o.thread ^ unsigned(mask)]);
}

inline bool any_of_block(bool value) {
  State& s = state();
  int& flag = s.any[own().ors++ % 2];
#ifdef MATCAPS_EMULATED_THREADS
  if (value) __atomic_store_n(&flag, 1, __ATOMIC_SEQ_CST);
  wait_for_block();
  const bool any = __atomic_load_n(&flag, __ATOMIC_SEQ_CST);
  wait_for_block();
  if (own().thread == 0) __atomic_store_n(&flag, 0, __ATOMIC_SEQ_CST);
#else
  if (value) flag = 1;
  wait_for_block();
  const bool any = flag;
  wait_for_block();
  if (own().thread == 0) flag = 0;
#endif
  return any;
}

template <class Kernel, class Arguments>
void launch(Kernel kernel, const Arguments& arguments, Dim3 grid, int threads, size_t shared_bytes) {
  State& s = state();
  s.threads = threads;
  s.slots.assign(2 * threads, 0.0);
  s.any[0] = s.any[1] = 0;
  std::vector<Dim3> blocks;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) blocks.push_back({x, y, z});
  s.shared = static_cast<unsigned char*>(std::aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
#ifdef MATCAPS_EMULATED_THREADS
  pthread_barrier_init(&block_barrier(), nullptr, threads);
  const int warps = (threads + kWarp - 1) / kWarp;
  warp_barriers().resize(warps);
  for (int w = 0; w < warps; ++w)
    pthread_barrier_init(&warp_barriers()[w], nullptr, threads - w * kWarp < kWarp ? threads - w * kWarp : kWarp);
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i)
    all.emplace_back([&, i] {
      for (const Dim3& block : blocks) {
        own() = Own{unsigned(i), 0, 0};
        if (i == 0) {
          s.block = block;
          std::memset(s.shared, 0xff, shared_bytes);
        }
        wait_for_block();
        kernel(arguments);
        wait_for_block();
      }
    });
  for (auto& thread : all) thread.join();
  for (auto& barrier : warp_barriers()) pthread_barrier_destroy(&barrier);
  pthread_barrier_destroy(&block_barrier());
#else
  if (int(fibers().size()) < threads) fibers().resize(threads);
  for (auto& fiber : fibers())
    if (fiber.stack.empty()) fiber.stack.resize(kStack);
  work() = [&] { kernel(arguments); };
  for (const Dim3& block : blocks) {
    s.block = block;
    std::memset(s.shared, 0xff, shared_bytes);
    run_block(threads);
  }
#endif
  std::free(s.shared);
}

}  // namespace emulator

// as in CUDA
#define threadIdx (emulator::Dim3{emulator::own().thread, 0, 0})
#define blockIdx (emulator::state().block)

DEVICE unsigned char* shared_memory() { return emulator::state().shared; }
template <int kBytes>
DEVICE void start_copy(void* to, const void* from) {
  if (reinterpret_cast<size_t>(to) % kBytes || reinterpret_cast<size_t>(from) % kBytes) {
    std::fprintf(stderr, "emulator: a copy of %d bytes is not aligned\n", kBytes);
    std::abort();
  }
#ifdef MATCAPS_EMULATED_THREADS
  std::memcpy(to, from, kBytes);
#else
  emulator::own().copies.push_back({to, from, kBytes});
#endif
}
DEVICE void wait_for_copies() {
#ifndef MATCAPS_EMULATED_THREADS
  for (const emulator::Copy& copy : emulator::own().copies) std::memcpy(copy.to, copy.from, size_t(copy.bytes));
  emulator::own().copies.clear();
#endif
}
DEVICE float of_neighbour(float value, int mask) { return emulator::of_neighbour(value, mask); }
DEVICE double of_neighbour(double value, int mask) { return emulator::of_neighbour(value, mask); }
DEVICE float product(float x, float y) { return x * y; }
DEVICE double product(double x, double y) { return x * y; }
DEVICE void synchronise() { emulator::wait_for_block(); }
DEVICE bool any_of_block(bool value) { return emulator::any_of_block(value); }

// Working memory: aligned, uninitialised unless asked for.
#pragma once

#include <stdint.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace matcaps {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) {
    const size_t bytes = (size_t(size) * sizeof(T) + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64)));
    if (!data_) throw std::bad_alloc();
  }
  static Buffer zeros(int64_t size) {
    Buffer buffer(size);
    std::memset(static_cast<void*>(buffer.get()), 0, size_t(size) * sizeof(T));
    return buffer;
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
};

// Asks for large pages where a large buffer is about to be written for the first time: a fault every 4 KB costs more than
// the arithmetic on some of them. Only advice; nothing depends on it.
inline void prefer_large_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(1) << 21;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace matcaps

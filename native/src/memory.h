// Working memory: aligned, uninitialised unless asked for.
#pragma once

#include <stdint.h>

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

}  // namespace matcaps

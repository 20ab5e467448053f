// Launches the kernels as a plan of sanitize.py says, on buffers of exactly the size that they have on a GPU, and looks
// whether the results are numbers: what is not written is NaN, in shared memory, too.
#include "emulated.cpp"

#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

int main(int count, char** words) {
  if (count != 3) return 2;
  std::ifstream plan(words[1]), inputs(words[2], std::ios::binary);
  std::vector<char*> buffers;
  std::vector<size_t> sizes;
  std::string line;
  while (std::getline(plan, line)) {
    std::istringstream in(line);
    std::string kind, name;
    in >> kind;
    if (kind == "buffer") {  // bytes; -1: there is none. The rest: whether its content is an input.
      long long bytes = 0;
      bool is_input = false;
      in >> bytes >> is_input;
      char* buffer = bytes < 0 ? nullptr : static_cast<char*>(std::malloc(size_t(bytes)));
      if (buffer && is_input) inputs.read(buffer, bytes);
      if (buffer && !is_input) std::memset(buffer, 0xff, size_t(bytes));
      buffers.push_back(buffer);
      sizes.push_back(bytes < 0 ? 0 : size_t(bytes));
    } else if (kind == "launch") {
      unsigned x = 0, y = 0, z = 0;
      int threads = 0;
      size_t shared = 0;
      std::string bytes;
      in >> name >> x >> y >> z >> threads >> shared >> bytes;
      Arguments arguments;
      if (bytes.size() != 2 * sizeof(arguments)) return std::cerr << "Arguments have another size in Python\n", 2;
      for (size_t i = 0; i < sizeof(arguments); ++i)
        reinterpret_cast<unsigned char*>(&arguments)[i] = static_cast<unsigned char>(std::stoi(bytes.substr(2 * i, 2), nullptr, 16));
      std::memcpy(static_cast<void*>(&arguments), buffers.data(), buffers.size() * sizeof(char*));  // they come first
      if (launch(name.c_str(), &arguments, x, y, z, threads, shared) != 0) return std::cerr << "no kernel " << name << "\n", 2;
    } else if (kind == "result") {
      size_t at = 0;
      in >> at >> name;
      const Real* values = reinterpret_cast<const Real*>(buffers[at]);
      for (size_t i = 0; i < sizes[at] / sizeof(Real); ++i)
        if (!std::isfinite(values[i])) return std::cerr << name << " has what is no number at " << i << "\n", 1;
    }
  }
  for (char* buffer : buffers) std::free(buffer);
  return 0;
}

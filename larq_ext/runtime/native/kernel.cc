#include "kernel.h"

#include <cstring>
#include <memory>

namespace larq_ext {

extern const Kernel kPortableKernel;
#if defined(__x86_64__)
extern const Kernel kAvx512VpopcntKernel;
extern const Kernel kAvx512Kernel;
extern const Kernel kAvx2Kernel;
#elif defined(__aarch64__)
extern const Kernel kNeonKernel;
#endif

void ConvPlan::AllocateFilter() {
  constexpr size_t kAlignment = 64;  // of the longest vectors
  filter_storage.assign(block_bytes * blocks * shape.groups + kAlignment, 0);
  void* start = filter_storage.data();
  size_t space = filter_storage.size();
  filter = static_cast<uint8_t*>(
      std::align(kAlignment, space - kAlignment, start, space));
}

const std::vector<const Kernel*>& Kernels() {
  static const std::vector<const Kernel*> kernels = [] {
    std::vector<const Kernel*> supported;
    for (const Kernel* kernel : {
#if defined(__x86_64__)
             &kAvx512VpopcntKernel, &kAvx512Kernel, &kAvx2Kernel,
#elif defined(__aarch64__)
             &kNeonKernel,
#endif
             &kPortableKernel}) {
      if (kernel->supported()) supported.push_back(kernel);
    }
    return supported;
  }();
  return kernels;
}

const Kernel* FindKernel(const char* name) {
  if (std::strcmp(name, "auto") == 0) return Kernels().front();
  for (const Kernel* kernel : Kernels()) {
    if (std::strcmp(name, kernel->name) == 0) return kernel;
  }
  return nullptr;
}

}  // namespace larq_ext

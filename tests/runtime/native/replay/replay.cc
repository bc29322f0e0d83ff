// Runs a file of cases through the delegate's entry points, without TensorFlow Lite:
//   replay CASES KERNEL[,KERNEL...] THREADS[,THREADS...]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <sstream>

#include "entry_points.h"
#include "mock_runtime.h"

namespace replay {
namespace {

void PrintError(const char* message) { std::fprintf(stderr, "the delegate: %s\n", message); }

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

// Largest difference of floats, relative to the largest magnitude.
double FloatDifference(const void* found, const void* expected, size_t bytes) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < bytes; i += sizeof(float)) {
    float one, two;
    std::memcpy(&one, static_cast<const char*>(found) + i, sizeof one);
    std::memcpy(&two, static_cast<const char*>(expected) + i, sizeof two);
    largest = std::max(largest, std::abs(double{two}));
    const double here = std::abs(double{one} - two);
    if (!(here < std::numeric_limits<double>::infinity())) return here;
    difference = std::max(difference, here);
  }
  return difference == 0 ? 0 : difference / std::max(largest, 1e-30);
}

bool Matches(const TfLiteTensor& tensor, const Values& expected, float tolerance,
             double* largest, std::string* why) {
  const std::vector<int> dims(tensor.dims->data, tensor.dims->data + tensor.dims->size);
  if (dims != expected.dims || tensor.bytes != expected.data.size()) {
    *why = "wrong shape";
    return false;
  }
  if (tensor.bytes == 0) return true;
  if (tensor.type == kTfLiteFloat32) {
    const double difference =
        FloatDifference(tensor.data, expected.data.data(), expected.data.size());
    if (!(difference <= tolerance)) {
      *why = "differs by " + std::to_string(difference);
      return false;
    }
    *largest = std::max(*largest, difference);
    return true;
  }
  const auto* found = static_cast<const uint8_t*>(tensor.data);
  const auto where = std::mismatch(expected.data.begin(), expected.data.end(), found);
  if (where.first == expected.data.end()) return true;
  *why = "byte " + std::to_string(where.first - expected.data.begin()) + " of " +
         std::to_string(tensor.bytes) + " differs";
  return false;
}

bool IsResized(const Case& one) {
  return std::any_of(one.inputs.begin(), one.inputs.end(), [&](const Values& input) {
    return input.dims != one.tensors[input.tensor].dims;
  });
}

// Runs with the sizes of the file and with zeros, then changes to the sizes of the inputs.
bool RunAtOwnSize(const Case& one, MockRuntime& runtime) {
  if (!runtime.Allocate()) return false;
  for (const Values& input : one.inputs) {
    TfLiteTensor& tensor = runtime.tensor(input.tensor);
    std::memset(tensor.data, 0, tensor.bytes);
  }
  if (!runtime.Invoke()) return false;
  for (const Values& input : one.inputs) runtime.ResizeInput(input.tensor, input.dims);
  return true;
}

bool RunCase(const Case& one, TfLiteDelegate* delegate, double* largest, std::string* why) {
  MockRuntime runtime(one);
  const bool ready = runtime.Delegate(delegate) &&
                     (!IsResized(one) || RunAtOwnSize(one, runtime)) && runtime.Allocate();
  for (int run = 0; ready && run < 2; ++run) {
    for (const Values& input : one.inputs) {
      if (input.data.empty()) continue;
      std::memcpy(runtime.tensor(input.tensor).data, input.data.data(), input.data.size());
    }
    if (!runtime.Invoke()) break;
    if (run == 0) continue;
    for (const Values& output : one.outputs) {
      if (!Matches(runtime.tensor(output.tensor), output, one.tolerance, largest, why)) {
        return false;
      }
    }
    return true;
  }
  *why = "refused: " + runtime.errors();
  return false;
}

int RunAll(const std::vector<Case>& cases, const std::string& kernel,
           const std::string& threads) {
  int failures = 0;
  double largest = 0;
  for (const Case& one : cases) {
    char key_kernel[] = "kernel", key_threads[] = "num_threads";
    std::string kernel_value = kernel, threads_value = threads;
    char* keys[] = {key_kernel, key_threads};
    char* values[] = {kernel_value.data(), threads_value.data()};
    TfLiteDelegate* delegate = tflite_plugin_create_delegate(keys, values, 2, PrintError);
    if (delegate == nullptr) {
      std::printf("FAIL no delegate for kernel %s\n", kernel.c_str());
      return 1;
    }
    std::string why;
    if (!RunCase(one, delegate, &largest, &why)) {
      std::printf("FAIL %s %s: %s: %s\n", kernel.c_str(), threads.c_str(), one.name.c_str(),
                  why.c_str());
      ++failures;
    }
    tflite_plugin_destroy_delegate(delegate);
  }
  std::printf("kernel %s, %s threads: %zu cases, %d failures, largest difference %.2g\n",
              kernel.c_str(), threads.c_str(), cases.size(), failures, largest);
  return failures;
}

}  // namespace
}  // namespace replay

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: replay CASES KERNELS THREADS\n");
    return 2;
  }
  const std::vector<replay::Case> cases = replay::ReadCases(argv[1]);
  int failures = 0;
  for (const std::string& kernel : replay::Split(argv[2])) {
    for (const std::string& threads : replay::Split(argv[3])) {
      failures += replay::RunAll(cases, kernel, threads);
      std::fflush(stdout);
    }
  }
  return failures == 0 ? 0 : 1;
}

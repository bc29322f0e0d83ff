// Binary convolution: from the operator's options and constants to a plan that a kernel runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel.h"
#include "thread_pool.h"

namespace larq_ext {

// The sizes of a tensor.
using Shape = std::vector<int>;
int64_t NumberOfElements(const Shape& shape);

// The output size of a sliding window, and how far it reaches beyond the input at the beginning.
struct Window {
  int output = 0;
  int before = 0;
};
// Returns an output of 0 where the window fits nowhere or the sizes make no sense.
Window SlideWindow(int input, int filter, int stride, int dilation, bool same);

// Memory that the layers of a network share, because they run one after the other.
struct Scratch {
  std::vector<uint8_t> plane;
  std::vector<uint32_t> bits;
};

class BConv {
 public:
  // What the operator says of itself.
  struct Options {
    int stride_height = 1, stride_width = 1;
    int dilation_height = 1, dilation_width = 1;
    bool same = false;
    bool zero_padding = false;
    int channels_in = 0;
    Activation activation = Activation::kNone;
  };
  // Its constants, as they lie in the model.
  struct Constants {
    const uint32_t* filter = nullptr;
    Shape filter_shape;
    const float* multiplier = nullptr;
    const float* bias = nullptr;
    const int32_t* thresholds = nullptr;
  };
  enum class Source { kBits, kFloat, kInt8 };

  // All these return what is wrong, or an empty string.
  std::string Configure(const Kernel* kernel, const Options& options, const Constants& constants,
                        Output output, float scale, int zero_point);
  // Prepares for bit-packed inputs of this shape (batch, height, width, words).
  std::string Reshape(const Shape& input, Scratch* scratch);

  // The shape of the output as numbers.
  Shape output_shape() const;
  int channels_in() const { return options_.channels_in; }
  int64_t multiply_adds() const { return plan_.shape.multiply_adds(); }
  const OutputTransform& transform() const { return plan_.transform; }

  // Convolves `source`; `outputs` holds the pointers of the transform that change between runs.
  void Run(const void* source, Source kind, int zero_point, const OutputTransform& outputs,
           Scratch* scratch, ThreadPool* pool);

 private:
  void CorrectZeroPadding();
  void Fill(const void* source, Source kind, int zero_point, Scratch* scratch, ThreadPool* pool);

  const Kernel* kernel_ = nullptr;
  Options options_;
  Constants constants_;
  ConvPlan plan_;
  std::vector<float> multiplier_, bias_;
  std::vector<int32_t> thresholds_, correction_;
  std::vector<int> row_class_, column_class_;
};

}  // namespace larq_ext

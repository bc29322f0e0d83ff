// What a kernel is: the functions that differ from CPU to CPU, and the data they work on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "bits are read as words and as bytes, the lowest first");

namespace larq_ext {

// Sizes of a binary convolution. Channels are counted in bits, words hold 32 of them.
struct ConvShape {
  int batch = 0, in_height = 0, in_width = 0;
  int out_height = 0, out_width = 0;
  int filter_height = 0, filter_width = 0;
  int stride_height = 1, stride_width = 1;
  int dilation_height = 1, dilation_width = 1;
  int pad_top = 0, pad_left = 0;
  int groups = 1;
  int group_channels_in = 0;   // input channels of a group
  int group_channels_out = 0;  // output channels of a group

  int group_words() const { return (group_channels_in + 31) / 32; }
  int words_in() const { return groups * group_words(); }
  int channels_out() const { return groups * group_channels_out; }
  int words_out() const { return (channels_out() + 31) / 32; }
  int taps() const { return filter_height * filter_width; }
  int64_t pixels_out() const { return int64_t{batch} * out_height * out_width; }
  // The input with its border, as the kernels see it: as large as the filter reaches.
  int plane_height() const {
    return (out_height - 1) * stride_height + (filter_height - 1) * dilation_height + 1;
  }
  int plane_width() const {
    return (out_width - 1) * stride_width + (filter_width - 1) * dilation_width + 1;
  }
  int64_t multiply_adds() const {
    return pixels_out() * channels_out() * taps() * group_channels_in;
  }
};

enum class Activation { kNone, kRelu, kReluN1To1, kRelu6, kPrelu };

// How much is to be done with a float value: nothing, all but the summands by channel, or all. Each
// has code of its own, because a look for summands in every vector is felt in small layers.
enum class Finishing { kNone, kUsual, kShifted };

// What happens to a float value on its way to memory:
//   y = second(first(y) + residual + before) + behind,
// stored as a number, as the sign bit of y + threshold, or both. The arrays by channel are padded
// with kChannelPadding elements.
struct Finish {
  Activation first = Activation::kNone;
  const float* first_slope = nullptr;  // of PReLU, by channel
  const float* residual = nullptr;     // laid out like the output
  const float* before = nullptr;       // by channel
  Activation second = Activation::kNone;
  const float* second_slope = nullptr;
  const float* behind = nullptr;     // by channel
  const float* threshold = nullptr;  // by channel
  float* values = nullptr;
  uint32_t* bits = nullptr;

  Finishing finishing() const {
    if (before != nullptr || behind != nullptr || threshold != nullptr) return Finishing::kShifted;
    const bool none = first == Activation::kNone && residual == nullptr &&
                      second == Activation::kNone && bits == nullptr;
    return none ? Finishing::kNone : Finishing::kUsual;
  }
};

enum class Output { kFloat, kInt8, kBits };

// From the number of differing bits (`sum`) to the output:
//   x = clamp(2 * sum + correction);  float: x * multiplier + bias, then `finish`;
//   int8: the same, rounded and saturated;  bits: x > threshold.
// The arrays by channel are padded with kChannelPadding elements.
struct OutputTransform {
  Output kind = Output::kFloat;
  const float* multiplier = nullptr;
  const float* bias = nullptr;
  const int32_t* threshold = nullptr;
  bool clamps = false;
  int32_t clamp_min = 0, clamp_max = 0;
  // Zero padding: what the taps outside of the image change, [class of y][class of x][channel].
  const int32_t* correction = nullptr;
  const int* row_class = nullptr;
  const int* column_class = nullptr;
  int column_classes = 0;

  Finish finish;
  int8_t* int8 = nullptr;
  uint32_t* bits = nullptr;
};

constexpr int kChannelPadding = 128;

// A convolution made ready for one kernel.
struct ConvPlan {
  ConvShape shape;
  std::vector<uint8_t> filter_storage;
  uint8_t* filter = nullptr;  // aligned to 64 bytes, in the kernel's own order
  size_t block_bytes = 0;     // of the filters of one block of output channels
  int blocks = 0;             // blocks of a group
  int pixel_bytes = 0;        // of one pixel of the plane, all groups
  int group_bytes = 0;        // of one pixel of the plane, one group
  // Where the kernel reads: offsets in bytes from the pixel at the filter's corner.
  struct Step {
    int32_t first, second;  // meaning depends on the kernel
  };
  std::vector<Step> steps;
  OutputTransform transform;

  // Makes room for `block_bytes` of each block, filled with zeros.
  void AllocateFilter();
};

struct Kernel {
  const char* name;
  // Whether this CPU can run it.
  bool (*supported)();
  // Lays out filters (LCE's order: output channel, y, x, word) and offsets for this kernel.
  void (*prepare)(const uint32_t* filter, ConvPlan* plan);
  // Writes one row of the plane from a row of bits: `width` pixels of words_in() words each at
  // `row`, `left` empty pixels before them and empty ones after, up to plane_width().
  void (*fill_row)(const ConvPlan& plan, const uint32_t* row, int left, int width, uint8_t* cells);
  // Computes output pixels [begin, end) of all or of one part of the output channels.
  void (*run)(const ConvPlan& plan, const uint8_t* plane, int64_t begin, int64_t end, int part,
              int parts);
  // Output channels that are computed together; a part of the channels is a multiple of it.
  int tile_channels;
  // The largest count of bits that it can hold.
  int64_t max_sum;
  // Bits of `rows` rows of numbers: set where the number is less than zero (or `zero_point`).
  void (*pack_float)(const float* values, int64_t rows, int channels, uint32_t* bits);
  void (*pack_int8)(const int8_t* values, int64_t rows, int channels, int zero_point,
                    uint32_t* bits);
  // Applies `finish` to `rows` rows of numbers.
  void (*finish)(const float* values, int64_t rows, int channels, const Finish& finish);
  // Binary multiply-adds a second of a loop of this kernel's inner instructions on registers.
  double (*peak)(double seconds);
};

// The kernels of this build that this CPU can run, best first.
const std::vector<const Kernel*>& Kernels();
// The kernel of that name, the best one for "auto"; null if there is none.
const Kernel* FindKernel(const char* name);

}  // namespace larq_ext

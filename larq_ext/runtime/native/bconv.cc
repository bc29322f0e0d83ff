#include "bconv.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>

namespace larq_ext {
namespace {

constexpr int64_t kMaxBytes = std::numeric_limits<int32_t>::max();
// Strides and dilations beyond any use; they keep products of sizes within 64 bits.
constexpr int kMaxFactor = 1 << 15;
// What the first-level cache holds of the input beside the filters of a tile.
constexpr int kChunkBytes = 16 << 10;
// Fewer pixels than this are not worth a thread's attention.
constexpr int64_t kMinChunkPixels = 48;

int CountBits(uint32_t word) {
  int count = 0;
  for (; word != 0; word &= word - 1) ++count;
  return count;
}

// The limits of the sum x = bits * 2, where an activation clamps the convolution K - x.
void ClampLimits(Activation activation, int depth, int32_t* clamp_min, int32_t* clamp_max) {
  int low = -depth, high = depth;
  if (activation == Activation::kRelu) low = 0;
  if (activation == Activation::kReluN1To1) low = std::max(low, -1), high = std::min(high, 1);
  if (activation == Activation::kRelu6) low = 0, high = std::min(high, 6);
  *clamp_min = depth - high;
  *clamp_max = depth - low;
}

// For each output position the taps that lie inside the input; equal sets get equal numbers.
std::vector<int> BorderClasses(int outputs, int inputs, int filter, int stride, int dilation,
                               int before, std::vector<std::vector<bool>>* sets) {
  std::map<std::vector<bool>, int> numbers;
  std::vector<int> classes(outputs);
  for (int i = 0; i < outputs; ++i) {
    std::vector<bool> inside(filter);
    for (int tap = 0; tap < filter; ++tap) {
      const int64_t at = int64_t{i} * stride - before + int64_t{tap} * dilation;
      inside[tap] = at >= 0 && at < inputs;
    }
    const auto found = numbers.emplace(inside, static_cast<int>(numbers.size()));
    if (found.second) sets->push_back(inside);
    classes[i] = found.first->second;
  }
  return classes;
}

}  // namespace

int64_t NumberOfElements(const Shape& shape) {
  int64_t number = 1;
  for (int size : shape) number *= size;
  return number;
}

Window SlideWindow(int input, int filter, int stride, int dilation, bool same) {
  Window window;
  if (input < 1 || filter < 1 || stride < 1 || dilation < 1 || stride > kMaxFactor ||
      dilation > kMaxFactor) {
    return window;
  }
  const int64_t reach = (int64_t{filter} - 1) * dilation + 1;
  const int64_t output = same ? (int64_t{input} + stride - 1) / stride
                              : (int64_t{input} - reach + stride) / stride;
  if (output < 1 || (!same && input < reach)) return window;
  const int64_t total = (output - 1) * stride + reach - input;
  if (total > kMaxBytes) return window;
  window.output = static_cast<int>(output);
  window.before = total > 0 ? static_cast<int>(total / 2) : 0;
  return window;
}

std::string BConv::Configure(const Kernel* kernel, const Options& options,
                             const Constants& constants, Output output, float scale,
                             int zero_point) {
  options_ = options;
  constants_ = constants;
  ConvShape& shape = plan_.shape;
  const Shape& filter = constants.filter_shape;
  if (filter.size() != 4 || *std::min_element(filter.begin(), filter.end()) < 1) {
    return "the filter must have four dimensions of at least 1";
  }
  if (NumberOfElements({filter[0], filter[1]}) > kMaxBytes ||
      NumberOfElements({filter[2], filter[3]}) > kMaxBytes) {
    return "the filter is too large";
  }
  if (options.channels_in < 1 || options.channels_in > kMaxBytes / 64) {
    return "channels_in must be at least 1";
  }
  const int words = (options.channels_in + 31) / 32;
  if (words % filter[3] != 0) {
    return "the filter's words (" + std::to_string(filter[3]) +
           ") do not fit those of the input (" + std::to_string(words) + ")";
  }
  shape.groups = words / filter[3];
  if (shape.groups > 1 && options.channels_in % (32 * shape.groups) != 0) {
    return "the input channels of a group must be a multiple of 32";
  }
  if (filter[0] % shape.groups != 0) {
    return "the output channels must be a multiple of the groups";
  }
  shape.group_channels_in = options.channels_in / shape.groups;
  shape.group_channels_out = filter[0] / shape.groups;
  shape.filter_height = filter[1];
  shape.filter_width = filter[2];
  shape.stride_height = options.stride_height;
  shape.stride_width = options.stride_width;
  shape.dilation_height = options.dilation_height;
  shape.dilation_width = options.dilation_width;
  const int64_t depth = int64_t{shape.filter_height} * shape.filter_width *
                        shape.group_channels_in;
  const Kernel* portable = FindKernel("portable");
  if (depth > portable->max_sum / 4) return "the filter is too large";
  kernel_ = depth <= kernel->max_sum ? kernel : portable;

  OutputTransform& transform = plan_.transform;
  transform.kind = output;
  const int channels = filter[0];
  if (output == Output::kBits) {
    // Thresholds know of the activation. They are doubled as the sums are; beyond any sum they
    // keep their meaning when clamped.
    thresholds_.assign(channels + kChannelPadding, 0);
    for (int i = 0; i < channels; ++i) {
      const int32_t limit = 1 << 30;
      thresholds_[i] = 2 * std::clamp(constants.thresholds[i], -limit, limit - 1);
    }
    transform.threshold = thresholds_.data();
    transform.clamp_min = std::numeric_limits<int32_t>::min();
    transform.clamp_max = std::numeric_limits<int32_t>::max();
    return "";
  }
  // The way back from bits to the convolution, K - x, goes into multiplier and bias.
  multiplier_.assign(channels + kChannelPadding, 0.0f);
  bias_.assign(channels + kChannelPadding, 0.0f);
  const double divisor = output == Output::kInt8 ? scale : 1.0;
  const double offset = output == Output::kInt8 ? zero_point : 0.0;
  for (int i = 0; i < channels; ++i) {
    const double multiplier = constants.multiplier[i];
    multiplier_[i] = static_cast<float>(-1 * multiplier / divisor);
    bias_[i] = static_cast<float>(
        (constants.bias[i] + static_cast<double>(depth) * multiplier) / divisor + offset);
  }
  transform.multiplier = multiplier_.data();
  transform.bias = bias_.data();
  ClampLimits(options.activation, static_cast<int>(depth), &transform.clamp_min,
              &transform.clamp_max);
  transform.clamps = options.activation != Activation::kNone;
  return "";
}

std::string BConv::Reshape(const Shape& input, Scratch* scratch) {
  ConvShape& shape = plan_.shape;
  if (input.size() != 4 || *std::min_element(input.begin(), input.end()) < 1) {
    return "the input must have four dimensions of at least 1";
  }
  if (input[3] != shape.words_in()) {
    return "the input has " + std::to_string(input[3]) + " words a pixel, but channels_in needs " +
           std::to_string(shape.words_in());
  }
  const Window rows = SlideWindow(input[1], shape.filter_height, shape.stride_height,
                                  shape.dilation_height, options_.same);
  const Window columns = SlideWindow(input[2], shape.filter_width, shape.stride_width,
                                     shape.dilation_width, options_.same);
  if (rows.output == 0 || columns.output == 0) {
    return "filter, stride or dilation do not fit an input of " + std::to_string(input[1]) +
           " x " + std::to_string(input[2]);
  }
  shape.batch = input[0];
  shape.in_height = input[1];
  shape.in_width = input[2];
  shape.out_height = rows.output;
  shape.out_width = columns.output;
  shape.pad_top = rows.before;
  shape.pad_left = columns.before;
  // Cells take at most eight bytes a word, so this also bounds every offset in the plane.
  const double plane = double(shape.batch) * (double(rows.output) * shape.stride_height +
                                              double(shape.filter_height) * shape.dilation_height) *
                       (double(columns.output) * shape.stride_width +
                        double(shape.filter_width) * shape.dilation_width) *
                       8.0 * (shape.words_in() + shape.groups);
  if (plane > static_cast<double>(kMaxBytes) ||
      double(shape.pixels_out()) * shape.channels_out() > static_cast<double>(kMaxBytes)) {
    return "the tensors are too large";
  }
  kernel_->prepare(constants_.filter, &plan_);
  plan_.transform.correction = nullptr;
  if (options_.same && options_.zero_padding) CorrectZeroPadding();

  const size_t bytes =
      size_t(shape.batch) * shape.plane_height() * shape.plane_width() * plan_.pixel_bytes;
  // Kernels may read, not use, some bytes beyond the last pixel.
  scratch->plane.resize(std::max(scratch->plane.size(), bytes + 64));
  scratch->bits.resize(std::max(scratch->bits.size(), size_t(shape.batch) * shape.in_height *
                                                          shape.in_width * shape.words_in()));
  return "";
}

Shape BConv::output_shape() const {
  const ConvShape& shape = plan_.shape;
  return {shape.batch, shape.out_height, shape.out_width, shape.channels_out()};
}

// Bits pad with +1. Where the model pads with 0, each tap outside of the image adds
// sum over its channels of (1 - 2 * bit) to x = 2 * bits, as if half of its bits differed.
void BConv::CorrectZeroPadding() {
  const ConvShape& shape = plan_.shape;
  std::vector<std::vector<bool>> rows, columns;
  row_class_ = BorderClasses(shape.out_height, shape.in_height, shape.filter_height,
                             shape.stride_height, shape.dilation_height, shape.pad_top, &rows);
  column_class_ = BorderClasses(shape.out_width, shape.in_width, shape.filter_width,
                                shape.stride_width, shape.dilation_width, shape.pad_left,
                                &columns);
  const int channels = shape.channels_out();
  const int words = shape.group_words();
  std::vector<int32_t> tap_sums(size_t(channels) * shape.taps());
  for (size_t i = 0; i < tap_sums.size(); ++i) {
    int bits = 0;
    for (int word = 0; word < words; ++word) bits += CountBits(constants_.filter[i * words + word]);
    tap_sums[i] = shape.group_channels_in - 2 * bits;
  }
  const size_t stride = channels + kChannelPadding;
  correction_.assign(rows.size() * columns.size() * stride, 0);
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t column = 0; column < columns.size(); ++column) {
      int32_t* to = &correction_[(row * columns.size() + column) * stride];
      for (int tap = 0; tap < shape.taps(); ++tap) {
        if (rows[row][tap / shape.filter_width] && columns[column][tap % shape.filter_width]) {
          continue;
        }
        for (int channel = 0; channel < channels; ++channel) {
          to[channel] += tap_sums[size_t(channel) * shape.taps() + tap];
        }
      }
    }
  }
  plan_.transform.correction = correction_.data();
  plan_.transform.row_class = row_class_.data();
  plan_.transform.column_class = column_class_.data();
  plan_.transform.column_classes = static_cast<int>(columns.size());
}

// Brings the input into the plane, row by row: numbers to bits (if they are numbers), bits to
// cells, with the border round them.
void BConv::Fill(const void* source, Source kind, int zero_point, Scratch* scratch,
                 ThreadPool* pool) {
  const ConvShape& shape = plan_.shape;
  const int words = shape.words_in();
  const int plane_height = shape.plane_height();
  const int64_t row_bytes = int64_t{shape.plane_width()} * plan_.pixel_bytes;
  const int width = std::min(shape.in_width, shape.plane_width() - shape.pad_left);
  const int64_t rows = int64_t{shape.batch} * plane_height;
  const int64_t rows_of_item = std::max<int64_t>(1, kChunkBytes / row_bytes);
  pool->ForEach((rows + rows_of_item - 1) / rows_of_item, [&](int64_t item) {
    const int64_t end = std::min(rows, (item + 1) * rows_of_item);
    for (int64_t row = item * rows_of_item; row < end; ++row) {
      uint8_t* cells = scratch->plane.data() + row * row_bytes;
      const int y = static_cast<int>(row % plane_height) - shape.pad_top;
      if (y < 0 || y >= shape.in_height || width < 1) {
        std::memset(cells, 0, row_bytes);
        continue;
      }
      const int64_t pixel = (row / plane_height * shape.in_height + y) * shape.in_width;
      const uint32_t* bits = static_cast<const uint32_t*>(source) + pixel * words;
      if (kind != Source::kBits) {
        uint32_t* packed = scratch->bits.data() + pixel * words;
        const int channels = options_.channels_in;
        if (kind == Source::kFloat) {
          kernel_->pack_float(static_cast<const float*>(source) + pixel * channels, width,
                              channels, packed);
        } else {
          kernel_->pack_int8(static_cast<const int8_t*>(source) + pixel * channels, width,
                             channels, zero_point, packed);
        }
        bits = packed;
      }
      kernel_->fill_row(plan_, bits, shape.pad_left, width, cells);
    }
  });
}

void BConv::Run(const void* source, Source kind, int zero_point, const OutputTransform& outputs,
                Scratch* scratch, ThreadPool* pool) {
  Fill(source, kind, zero_point, scratch, pool);
  plan_.transform.finish = outputs.finish;
  plan_.transform.int8 = outputs.int8;
  plan_.transform.bits = outputs.bits;

  const ConvShape& shape = plan_.shape;
  const int64_t pixels = shape.pixels_out();
  const int64_t pixel_reach = int64_t{shape.stride_width} * shape.stride_height *
                              plan_.pixel_bytes;
  const int64_t chunk = std::max(kMinChunkPixels, kChunkBytes / std::max<int64_t>(1, pixel_reach));
  int64_t chunks = (pixels + chunk - 1) / chunk;
  if (pool->threads() > 1) {
    chunks = std::max(chunks, std::min<int64_t>(4 * pool->threads(), pixels / kMinChunkPixels));
  }
  chunks = std::max<int64_t>(chunks, 1);
  // Small images are shared out by output channels too, unless bits of two parts share a word.
  const bool writes_bits = outputs.bits != nullptr || outputs.finish.bits != nullptr;
  const bool divisible = !writes_bits || shape.groups == 1 || shape.group_channels_out % 32 == 0;
  int64_t parts = 1;
  if (pool->threads() > 1 && divisible) {
    const int64_t tiles = shape.groups * ((shape.group_channels_out + kernel_->tile_channels - 1) /
                                          kernel_->tile_channels);
    const int64_t wanted = 4 * int64_t{pool->threads()};
    parts = std::min(tiles, (wanted + chunks - 1) / chunks);
  }
  const uint8_t* plane = scratch->plane.data();
  pool->ForEach(chunks * parts, [&](int64_t item) {
    const int64_t piece = item / parts;
    kernel_->run(plan_, plane, pixels * piece / chunks, pixels * (piece + 1) / chunks,
                 static_cast<int>(item % parts), static_cast<int>(parts));
  });
}

}  // namespace larq_ext

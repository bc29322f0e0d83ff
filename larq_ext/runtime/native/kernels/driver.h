// The loops round a kernel's tile: which output pixels and channels, and where their input lies.
// Included once by each kernel after vectors.h and the tile. The kernel defines
//   Sum                 the type of a count
//   kBlock              output channels in a block of filters
//   kTileBlocks         blocks of a tile
//   kTilePixels         pixels of a tile, at most
//   Tile(plan, pixels, blocks, corners, filter, sums), which counts differing bits:
//     sums[pixel][kTileBlocks * kBlock].

constexpr int kTileChannels = kTileBlocks * kBlock;

template <Output kKind, Finishing kFinishing, bool kAdjusted>
void RunAs(const ConvPlan& plan, const uint8_t* plane, int64_t begin, int64_t end, int part,
           int parts) {
  const ConvShape& shape = plan.shape;
  // A copy, which no store to an output can change: its fields stay in registers.
  const OutputTransform transform = plan.transform;
  const int64_t plane_row = int64_t{shape.plane_width()} * plan.pixel_bytes;
  const int64_t plane_image = plane_row * shape.plane_height();
  const int64_t step_x = int64_t{shape.stride_width} * plan.pixel_bytes;
  const int64_t step_y = plane_row * shape.stride_height;
  const int tiles_of_group = (plan.blocks + kTileBlocks - 1) / kTileBlocks;
  const int64_t tiles = int64_t{tiles_of_group} * shape.groups;
  const int64_t number = end - begin;
  const int64_t pixel_tiles = (number + kTilePixels - 1) / kTilePixels;
  const int channels = shape.channels_out();
  const int words = shape.words_out();
  uint32_t* const bits = kKind == Output::kBits ? transform.bits : transform.finish.bits;
  alignas(64) Sum sums[kTilePixels * kTileChannels];

  for (int64_t tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile) {
    const int group = static_cast<int>(tile / tiles_of_group);
    const int block = static_cast<int>(tile % tiles_of_group) * kTileBlocks;
    const int blocks = plan.blocks - block < kTileBlocks ? plan.blocks - block : kTileBlocks;
    const int first = block * kBlock;
    const int left = shape.group_channels_out - first;
    const int count = left < blocks * kBlock ? left : blocks * kBlock;
    const int channel = group * shape.group_channels_out + first;
    const uint8_t* filter =
        plan.filter + (int64_t{group} * plan.blocks + block) * plan.block_bytes;

    int x = static_cast<int>(begin % shape.out_width);
    int y = static_cast<int>(begin / shape.out_width % shape.out_height);
    int64_t image = begin / shape.out_width / shape.out_height;
    const auto corner_of_row = [&] {
      return plane + image * plane_image + y * step_y + int64_t{group} * plan.group_bytes;
    };
    const uint8_t* corner = corner_of_row() + x * step_x;
    int64_t pixel = begin;
    for (int64_t i = 0; i < pixel_tiles; ++i) {
      // Tiles of nearly equal size: a last one of a single pixel would waste the registers.
      const int64_t next = begin + number * (i + 1) / pixel_tiles;
      const int pixels = static_cast<int>(next - pixel);
      const uint8_t* corners[kTilePixels];
      const int32_t* corrections[kTilePixels] = {};
      for (int p = 0; p < pixels; ++p) {
        corners[p] = corner;
        corner += step_x;
        if (kAdjusted && transform.correction != nullptr) {
          const int row = transform.row_class[y] * transform.column_classes;
          corrections[p] = transform.correction + int64_t{row + transform.column_class[x]} *
                                                      (channels + kChannelPadding);
        }
        if (++x == shape.out_width) {
          x = 0;
          if (++y == shape.out_height) {
            y = 0;
            ++image;
          }
          corner = corner_of_row();
        }
      }
      Tile(plan, pixels, blocks, corners, filter, sums);
      for (int p = 0; p < pixels; ++p) {
        Emit<Sum, kKind, kFinishing, kAdjusted>(
            sums + p * kTileChannels, transform, corrections[p], (pixel + p) * channels + channel,
            bits == nullptr ? nullptr : bits + (pixel + p) * words, channel, count);
      }
      pixel = next;
    }
  }
}

template <Output kKind, Finishing kFinishing>
auto ChooseRun(bool adjusted) {
  return adjusted ? RunAs<kKind, kFinishing, true> : RunAs<kKind, kFinishing, false>;
}

void Run(const ConvPlan& plan, const uint8_t* plane, int64_t begin, int64_t end, int part,
         int parts) {
  const OutputTransform& transform = plan.transform;
  const bool adjusted = transform.clamps || transform.correction != nullptr;
  auto* run = RunAs<Output::kInt8, Finishing::kNone, true>;
  if (transform.kind == Output::kBits) {
    run = ChooseRun<Output::kBits, Finishing::kNone>(adjusted);
  } else if (transform.kind == Output::kFloat) {
    switch (transform.finish.finishing()) {
      case Finishing::kNone:
        run = ChooseRun<Output::kFloat, Finishing::kNone>(adjusted);
        break;
      case Finishing::kUsual:
        run = ChooseRun<Output::kFloat, Finishing::kUsual>(adjusted);
        break;
      case Finishing::kShifted:
        run = ChooseRun<Output::kFloat, Finishing::kShifted>(adjusted);
        break;
    }
  }
  run(plan, plane, begin, end, part, parts);
}

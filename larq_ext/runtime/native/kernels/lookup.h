// Convolution with tables of 16 counts, for CPUs that can shuffle bytes but not count bits.
//
// A lane is a byte and an output channel. Four channels of input are the number of a table that
// holds the count of differing bits for each of the 16 possible filters; the filters of all lanes
// look their count up with one shuffle: two operations (shuffle, add) for four products a lane,
// where XOR and a count of bits made of shuffles take eight for eight.
//
// Counts grow by four at most, so bytes hold the sum of 63 look-ups; then they are added to sums
// of 16 bits. Included once by a kernel, which defines kBlock (bytes in a vector), kTileBlocks and
// the type Bytes with Table(pointer), Lookup(table, indices) and ExpandNibbles (below).

using Sum = uint16_t;
constexpr int kLookups = 63;
typedef uint8_t ByteLanes __attribute__((vector_size(kBlock)));
typedef uint16_t ShortLanes __attribute__((vector_size(kBlock)));

struct CountTables {
  alignas(64) uint8_t counts[16][16];
  constexpr CountTables() : counts() {
    for (int input = 0; input < 16; ++input) {
      for (int filter = 0; filter < 16; ++filter) {
        for (int bit = 0; bit < 4; ++bit) counts[input][filter] += (input ^ filter) >> bit & 1;
      }
    }
  }
};
constexpr CountTables kTables;

// Even bytes go to the first half of the sums and odd bytes to the second.
LARQ_EXT_INLINE void Widen(ByteLanes counts, uint16_t* sums, bool add) {
  const ShortLanes pairs = reinterpret_cast<ShortLanes>(counts);
  ShortLanes even = pairs & 0xff, odd = pairs >> 8;
  if (add) {
    even += Load<ShortLanes>(sums);
    odd += Load<ShortLanes>(sums + kBlock / 2);
  }
  Store(sums, even);
  Store(sums + kBlock / 2, odd);
}

// A step is a run of `second` cells at offset `first`; the sign tells that sums are due after it.
template <int kPixels, int kBlocks>
void LookupTile(const ConvPlan& plan, const uint8_t* const* corners, const uint8_t* filter,
                uint16_t* sums) {
  ByteLanes counts[kPixels][kBlocks];
  bool add = false;
  bool fresh = true;
  const uint8_t* const table = kTables.counts[0];
  for (const ConvPlan::Step& step : plan.steps) {
    if (fresh) {
      for (int p = 0; p < kPixels; ++p) {
        for (int q = 0; q < kBlocks; ++q) counts[p][q] = ByteLanes{};
      }
    }
    fresh = step.second < 0;
    const int64_t cells = fresh ? -step.second : step.second;
    const uint8_t* from[kPixels];
    for (int p = 0; p < kPixels; ++p) from[p] = corners[p] + step.first;
    LARQ_EXT_UNROLL_TWICE
    for (int64_t i = 0; i < cells; ++i) {
      ByteLanes tables[kPixels];
      LARQ_EXT_UNROLL
      for (int p = 0; p < kPixels; ++p) tables[p] = Table(table + from[p][i]);
      LARQ_EXT_UNROLL
      for (int q = 0; q < kBlocks; ++q) {
        const ByteLanes indices = Load<ByteLanes>(filter + q * plan.block_bytes);
        LARQ_EXT_UNROLL
        for (int p = 0; p < kPixels; ++p) counts[p][q] += Lookup(tables[p], indices);
      }
      filter += kBlock;
    }
    if (!fresh) continue;
    for (int p = 0; p < kPixels; ++p) {
      for (int q = 0; q < kBlocks; ++q) {
        Widen(counts[p][q], sums + p * kTileBlocks * kBlock + q * kBlock, add);
      }
    }
    add = true;
  }
}

template <int kBlocks>
void LookupTiles(const ConvPlan& plan, int pixels, const uint8_t* const* corners,
                 const uint8_t* filter, uint16_t* sums) {
  switch (pixels) {
    case 1:
      return LookupTile<1, kBlocks>(plan, corners, filter, sums);
    case 2:
      return LookupTile<2, kBlocks>(plan, corners, filter, sums);
    case 3:
      return LookupTile<3, kBlocks>(plan, corners, filter, sums);
    case 4:
      return LookupTile<4, kBlocks>(plan, corners, filter, sums);
  }
}

void Tile(const ConvPlan& plan, int pixels, int blocks, const uint8_t* const* corners,
          const uint8_t* filter, uint16_t* sums) {
  static_assert(kTilePixels == 4 && kTileBlocks <= 4, "the cases here and above");
  switch (blocks) {
    case 1:
      return LookupTiles<1>(plan, pixels, corners, filter, sums);
    case 2:
      return LookupTiles<2>(plan, pixels, corners, filter, sums);
#if LARQ_EXT_TILE_BLOCKS > 2
    case 3:
      return LookupTiles<3>(plan, pixels, corners, filter, sums);
    case 4:
      return LookupTiles<4>(plan, pixels, corners, filter, sums);
#endif
  }
}

// A cell is a byte and holds four channels, times 16: the offset of their table.
void PrepareLookups(const uint32_t* filter, ConvPlan* plan) {
  const ConvShape& shape = plan->shape;
  const int nibbles = (shape.group_channels_in + 3) / 4;
  plan->group_bytes = nibbles;
  plan->pixel_bytes = nibbles * shape.groups;
  plan->blocks = (shape.group_channels_out + kBlock - 1) / kBlock;

  // Neighbouring taps of a row lie one after the other unless something stands between them.
  const bool joined = shape.groups == 1 && shape.dilation_width == 1;
  const int runs = joined ? 1 : shape.filter_width;
  const int length = joined ? nibbles * shape.filter_width : nibbles;
  plan->steps.clear();
  int collected = 0;
  for (int y = 0; y < shape.filter_height; ++y) {
    for (int run = 0; run < runs; ++run) {
      const int32_t at = (y * shape.dilation_height * shape.plane_width() +
                          run * shape.dilation_width) * plan->pixel_bytes;
      for (int done = 0; done < length;) {
        if (collected == kLookups) {
          plan->steps.back().second *= -1;
          collected = 0;
        }
        const int room = kLookups - collected;
        const int cells = length - done < room ? length - done : room;
        plan->steps.push_back({at + done, cells});
        done += cells;
        collected += cells;
      }
    }
  }
  plan->steps.back().second *= -1;

  const int64_t rows = int64_t{shape.taps()} * nibbles;
  plan->block_bytes = static_cast<size_t>(rows) * kBlock;
  plan->AllocateFilter();
  const int words = shape.group_words();
  for (int group = 0; group < shape.groups; ++group) {
    for (int channel = 0; channel < shape.group_channels_out; ++channel) {
      const uint32_t* from =
          filter + (int64_t{group} * shape.group_channels_out + channel) * shape.taps() * words;
      const int lane = channel % kBlock;
      const int byte = lane < kBlock / 2 ? 2 * lane : 2 * (lane - kBlock / 2) + 1;  // see Widen
      uint8_t* to = plan->filter +
                    (int64_t{group} * plan->blocks + channel / kBlock) * plan->block_bytes + byte;
      for (int tap = 0; tap < shape.taps(); ++tap) {
        for (int nibble = 0; nibble < nibbles; ++nibble, to += kBlock) {
          *to = from[tap * words + nibble / 8] >> (4 * (nibble % 8)) & 15;
        }
      }
    }
  }
}

// The nibbles of `bytes` bytes, lower ones first, each times 16.
LARQ_EXT_INLINE void ExpandBytes(const uint8_t* bits, int64_t bytes, uint8_t* cells) {
  int64_t i = 0;
  for (; i + 16 <= bytes; i += 16) ExpandNibbles(bits + i, cells + 2 * i);
  for (; i < bytes; ++i) {
    cells[2 * i] = static_cast<uint8_t>(bits[i] << 4);
    cells[2 * i + 1] = bits[i] & 0xf0;
  }
}

void FillLookups(const ConvPlan& plan, const uint32_t* row, int left, int width, uint8_t* cells) {
  const ConvShape& shape = plan.shape;
  const int words = shape.group_words();
  const int64_t pixel = plan.pixel_bytes;
  std::memset(cells, 0, static_cast<size_t>(left * pixel));
  uint8_t* to = cells + left * pixel;
  std::memset(to + width * pixel, 0,
              static_cast<size_t>((shape.plane_width() - left - width) * pixel));
  const uint8_t* bits = reinterpret_cast<const uint8_t*>(row);
  if (plan.group_bytes == 8 * words) {
    ExpandBytes(bits, int64_t{width} * shape.groups * words * 4, to);
    return;
  }
  for (int64_t i = 0; i < int64_t{width} * shape.groups; ++i, bits += 4 * words) {
    ExpandBytes(bits, plan.group_bytes / 2, to);
    if (plan.group_bytes % 2 != 0) {
      to[plan.group_bytes - 1] = static_cast<uint8_t>(bits[plan.group_bytes / 2] << 4);
    }
    to += plan.group_bytes;
  }
}

// Convolution with a popcount on vectors, two words of 32 channels at a time.
//
// A lane is an output channel. Of the products p = a ^ b (two words of input against two of the
// filter) a carry-save adder keeps the sum bit in `ones` and hands the carry to the popcount:
//   ones' = ones ^ p1 ^ p2,  carry = majority(ones, p1, p2)
// so there is one popcount for two products. The trick is where p2 comes from: it is never
// computed. The plane holds (a1, a1 ^ a2) and the filter (b1, b1 ^ b2) instead of (a1, a2) and
// (b1, b2), so ones' = ones ^ (a1 ^ a2) ^ (b1 ^ b2) is a single three-way XOR, and the carry
// follows from ones, p1 and ones'. In all five operations for two products, not six.
//
// Included once by a kernel, which defines kLanes and the type Words with
//   Broadcast(pointer), LoadWords(pointer), StoreWords(pointer, words), Add(a, b),
//   Count(words), the number of bits set in each lane, and
//   AddPair(a1, a1 ^ a2, b1, b1 ^ b2, &ones, &twos), the step above; twos sums up the carries.

using Sum = int32_t;
constexpr int kBlock = 16;

template <int kPixels, int kBlocks>
void PairTile(const ConvPlan& plan, const uint8_t* const* corners, const uint8_t* filter,
              int32_t* sums) {
  Words twos[kPixels][kBlocks], ones[kPixels][kBlocks];
  LARQ_EXT_UNROLL
  for (int p = 0; p < kPixels; ++p) {
    LARQ_EXT_UNROLL
    for (int q = 0; q < kBlocks; ++q) twos[p][q] = ones[p][q] = Words{};
  }
  for (const ConvPlan::Step& step : plan.steps) {
    Words first[kBlocks], both[kBlocks];
    LARQ_EXT_UNROLL
    for (int q = 0; q < kBlocks; ++q) {
      first[q] = LoadWords(filter + q * plan.block_bytes);
      both[q] = LoadWords(filter + q * plan.block_bytes + 4 * kBlock);
    }
    filter += 8 * kBlock;
    LARQ_EXT_UNROLL
    for (int p = 0; p < kPixels; ++p) {
      const Words a = Broadcast(corners[p] + step.first);
      const Words aa = Broadcast(corners[p] + step.second);
      LARQ_EXT_UNROLL
      for (int q = 0; q < kBlocks; ++q) {
        AddPair(a, aa, first[q], both[q], &ones[p][q], &twos[p][q]);
      }
    }
  }
  LARQ_EXT_UNROLL
  for (int p = 0; p < kPixels; ++p) {
    LARQ_EXT_UNROLL
    for (int q = 0; q < kBlocks; ++q) {
      StoreWords(sums + p * kTileBlocks * kBlock + q * kBlock,
                 Add(Add(twos[p][q], twos[p][q]), Count(ones[p][q])));
    }
  }
}

template <int kBlocks, int... kBefore>
void PairTiles(const ConvPlan& plan, int pixels, const uint8_t* const* corners,
               const uint8_t* filter, int32_t* sums, std::integer_sequence<int, kBefore...>) {
  constexpr decltype(&PairTile<1, kBlocks>) kTiles[] = {PairTile<kBefore + 1, kBlocks>...};
  kTiles[pixels - 1](plan, corners, filter, sums);
}

void Tile(const ConvPlan& plan, int pixels, int blocks, const uint8_t* const* corners,
          const uint8_t* filter, int32_t* sums) {
  static_assert(kTileBlocks == 2, "two cases below");
  constexpr std::make_integer_sequence<int, kTilePixels> kBefore;
  if (blocks == 2) {
    PairTiles<2>(plan, pixels, corners, filter, sums, kBefore);
  } else {
    PairTiles<1>(plan, pixels, corners, filter, sums, kBefore);
  }
}

// With 16 channels or less a word has room for two taps, so a row of three or four taps is one pair
// of words. (A row of two is one without that.)
inline bool JoinsTaps(const ConvShape& shape) {
  return shape.group_channels_in <= 16 && (shape.filter_width == 3 || shape.filter_width == 4);
}

// The words a1 and a2 of a joined row, from its taps or from vectors of them.
template <class Word>
LARQ_EXT_INLINE std::pair<Word, Word> JoinedWords(const Word (&taps)[4]) {
  return {taps[0] | taps[1] << 16, taps[2] | taps[3] << 16};
}

// The filters with joined rows: output channel, y, two words.
std::vector<uint32_t> JoinedFilter(const uint32_t* filter, const ConvShape& shape) {
  std::vector<uint32_t> joined;
  const int rows = shape.channels_out() * shape.filter_height;
  for (int row = 0; row < rows; ++row, filter += shape.filter_width) {
    uint32_t taps[4] = {};
    std::copy_n(filter, shape.filter_width, taps);
    const auto words = JoinedWords(taps);
    joined.insert(joined.end(), {words.first, words.second});
  }
  return joined;
}

// With an odd number of words the last one pairs with the last one of the filter's next tap to the
// right, which the plane keeps in one more cell. A word without a partner pairs with nothing: as
// a1 ^ 0 = a1, both its cells are the same.
void PreparePairs(const uint32_t* filter, ConvPlan* plan) {
  const ConvShape& shape = plan->shape;
  const int words = shape.group_words();
  const int cells = (words + 1) / 2 * 2;
  plan->group_bytes = 4 * cells;
  plan->pixel_bytes = plan->group_bytes * shape.groups;
  plan->blocks = (shape.group_channels_out + kBlock - 1) / kBlock;

  // For each step the words of the filter, counted within one output channel; -1 is no word.
  std::vector<std::pair<int, int>> pairs;
  plan->steps.clear();
  int64_t channel_words = int64_t{shape.taps()} * words;
  std::vector<uint32_t> joined;
  if (JoinsTaps(shape)) {
    joined = JoinedFilter(filter, shape);
    filter = joined.data();
    channel_words = 2 * shape.filter_height;
    for (int y = 0; y < shape.filter_height; ++y) {
      const int32_t at = y * shape.dilation_height * shape.plane_width() * plan->pixel_bytes;
      plan->steps.push_back({at, at + 4});
      pairs.push_back({2 * y, 2 * y + 1});
    }
  }
  for (int y = 0; y < shape.filter_height && joined.empty(); ++y) {
    for (int x = 0; x < shape.filter_width; ++x) {
      const int tap = y * shape.filter_width + x;
      const int32_t at = (y * shape.dilation_height * shape.plane_width() +
                          x * shape.dilation_width) * plan->pixel_bytes;
      for (int word = 0; word + 1 < words; word += 2) {
        plan->steps.push_back({at + 4 * word, at + 4 * word + 4});
        pairs.push_back({tap * words + word, tap * words + word + 1});
      }
      if (words % 2 == 0 || x % 2 == 1) continue;
      const int last = words - 1;
      const bool alone = x + 1 == shape.filter_width;
      plan->steps.push_back({at + 4 * last, at + 4 * (alone ? last : last + 1)});
      pairs.push_back({tap * words + last, alone ? -1 : (tap + 1) * words + last});
    }
  }

  plan->block_bytes = pairs.size() * 8 * kBlock;
  plan->AllocateFilter();
  for (int group = 0; group < shape.groups; ++group) {
    for (int channel = 0; channel < shape.group_channels_out; ++channel) {
      const uint32_t* from =
          filter + (int64_t{group} * shape.group_channels_out + channel) * channel_words;
      uint32_t* to = reinterpret_cast<uint32_t*>(
                         plan->filter + (int64_t{group} * plan->blocks + channel / kBlock) *
                                            plan->block_bytes) + channel % kBlock;
      for (const auto& pair : pairs) {
        to[0] = from[pair.first];
        to[kBlock] = pair.second < 0 ? to[0] : to[0] ^ from[pair.second];
        to += 2 * kBlock;
      }
    }
  }
}

// The cells of a word and its partner, or of vectors of them; `taps` are the words from there on.
template <bool kJoins, class Word>
LARQ_EXT_INLINE std::pair<Word, Word> CellsOf(const Word (&taps)[4]) {
  const auto words = kJoins ? JoinedWords(taps) : std::make_pair(taps[0], taps[1]);
  return {words.first, words.first ^ words.second};
}

// A row of the plane where each pixel (of a group) has one word.
template <bool kJoins>
void FillSingles(const ConvPlan& plan, const uint32_t* row, int left, int width, uint32_t* cells) {
  constexpr int kSome = kLanes / 2;
  typedef uint32_t Some __attribute__((vector_size(4 * kSome)));
  typedef uint64_t SomeLong __attribute__((vector_size(8 * kSome)));
  const ConvShape& shape = plan.shape;
  const int64_t reach = int64_t{shape.dilation_width} * shape.groups;
  const int64_t begin = int64_t{left} * shape.groups;
  const int64_t number = int64_t{width} * shape.groups;
  const int64_t all = int64_t{shape.plane_width()} * shape.groups;
  const int taps = kJoins ? shape.filter_width : 2;

  // One by one, because taps beyond the row are empty.
  const auto fill = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      uint32_t words[4] = {};
      for (int tap = 0; tap < taps; ++tap) {
        const int64_t at = i - begin + tap * reach;
        if (at >= 0 && at < number) words[tap] = row[at];
      }
      const auto both = CellsOf<kJoins>(words);
      cells[2 * i] = both.first;
      cells[2 * i + 1] = both.second;
    }
  };
  // A vector of words with all of their taps at a time; the last one may overlap that before.
  const int64_t whole = number - (taps - 1) * reach;
  if (whole < kSome) return fill(0, all);
  for (int64_t i = 0;; i = i + 2 * kSome < whole ? i + kSome : whole - kSome) {
    Some words[4] = {};
    for (int tap = 0; tap < taps; ++tap) words[tap] = Load<Some>(row + i + tap * reach);
    const auto both = CellsOf<kJoins>(words);
    Store(cells + 2 * (begin + i), __builtin_convertvector(both.first, SomeLong) |
                                       __builtin_convertvector(both.second, SomeLong) << 32);
    if (i == whole - kSome) break;
  }
  fill(0, begin);
  fill(begin + whole, all);
}

void FillPairs(const ConvPlan& plan, const uint32_t* row, int left, int width, uint8_t* cells) {
  const ConvShape& shape = plan.shape;
  const int words = shape.group_words();
  const int all = shape.plane_width();
  uint32_t* const start = reinterpret_cast<uint32_t*>(cells);
  const int64_t pixel_cells = plan.pixel_bytes / 4;
  if (words == 1) {
    return JoinsTaps(shape) ? FillSingles<true>(plan, row, left, width, start)
                            : FillSingles<false>(plan, row, left, width, start);
  }
  std::memset(start, 0, static_cast<size_t>(left * pixel_cells) * 4);
  uint32_t* to = start + left * pixel_cells;
  std::memset(to + width * pixel_cells, 0,
              static_cast<size_t>((all - left - width) * pixel_cells) * 4);
  if (words % 2 == 0) {
    const int64_t count = width * pixel_cells;
    for (int64_t i = 0; i < count; i += 2) {
      to[i] = row[i];
      to[i + 1] = row[i] ^ row[i + 1];
    }
    return;
  }
  for (int64_t i = 0; i < int64_t{width} * shape.groups; ++i, row += words, to += words + 1) {
    for (int word = 0; word + 1 < words; word += 2) {
      to[word] = row[word];
      to[word + 1] = row[word] ^ row[word + 1];
    }
    to[words - 1] = row[words - 1];
  }
  // The partner may be an empty pixel, and empty pixels have partners too.
  const int64_t reach = shape.dilation_width * pixel_cells;
  for (int64_t i = words - 1; i < all * pixel_cells; i += words + 1) {
    start[i + 1] = start[i] ^ (i + reach < all * pixel_cells ? start[i + reach] : 0);
  }
}

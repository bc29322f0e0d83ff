// Vectors of numbers, and the steps that all kernels take with them: packing bits, the way from
// counts to outputs. Included once by each kernel, within its namespace and for its instructions;
// the kernel defines kLanes (numbers in a vector) before, and the types Floats and Ints with
// NegativeLanes(y) and GreaterLanes(x, limit): a bit for each lane where y <= kNegative, or
// x > limit.
//
// Multiplications and additions stay separate (kernels forbid contraction), so that numbers equal
// those of Larq Compute Engine and of the runtime's own operators to the last bit.

typedef uint16_t Shorts __attribute__((vector_size(2 * kLanes)));

template <class Vector, class Number>
LARQ_EXT_INLINE Vector Load(const Number* from) {
  Vector vector;
  __builtin_memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector, class Number>
LARQ_EXT_INLINE void Store(Number* to, Vector vector) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

// The first `count` numbers; the others are zero.
LARQ_EXT_INLINE Floats LoadSome(const float* from, int count) {
  if (count >= kLanes) return Load<Floats>(from);
  float numbers[kLanes] = {};
  for (int i = 0; i < count; ++i) numbers[i] = from[i];
  return Load<Floats>(numbers);
}

LARQ_EXT_INLINE void StoreSome(float* to, Floats vector, int count) {
  if (count >= kLanes) return Store(to, vector);
  float numbers[kLanes];
  Store(numbers, vector);
  for (int i = 0; i < count; ++i) to[i] = numbers[i];
}

LARQ_EXT_INLINE Floats Splat(float number) { return Floats{} + number; }
LARQ_EXT_INLINE Ints Splat(int32_t number) { return Ints{} + number; }

LARQ_EXT_INLINE Ints LoadSums(const int32_t* sums) { return Load<Ints>(sums); }
LARQ_EXT_INLINE Ints LoadSums(const uint16_t* sums) {
  return __builtin_convertvector(Load<Shorts>(sums), Ints);
}

LARQ_EXT_INLINE uint32_t LowBits(int count) {
  return count >= 32 ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
}

// Stores up to 32 bits of consecutive channels that begin at `channel`. Channels come in ascending
// order, so a word is first written with its lowest channels.
LARQ_EXT_INLINE void StoreBits(uint32_t* pixel, int channel, int count, uint32_t bits) {
  uint32_t* word = pixel + channel / 32;
  const int shift = channel % 32;
  if (shift == 0) {
    *word = bits;
    return;
  }
  *word |= bits << shift;
  if (shift + count > 32) word[1] = bits >> (32 - shift);
}

LARQ_EXT_INLINE Floats Activate(Floats y, Activation activation, const float* slopes,
                                int channel) {
  switch (activation) {
    case Activation::kNone:
      return y;
    case Activation::kRelu:
      return y < 0.0f ? Splat(0.0f) : y;
    case Activation::kReluN1To1:
      y = y < -1.0f ? Splat(-1.0f) : y;
      return y > 1.0f ? Splat(1.0f) : y;
    case Activation::kRelu6:
      y = y < 0.0f ? Splat(0.0f) : y;
      return y > 6.0f ? Splat(6.0f) : y;
    case Activation::kPrelu:
      return y < 0.0f ? y * Load<Floats>(slopes + channel) : y;
  }
  return y;
}

// Finishes `count` numbers of one pixel; `offset` is where they lie in tensors of numbers.
// Returns their sign bits, the first in bit `shift`.
template <bool kShifted>
LARQ_EXT_INLINE uint32_t FinishLanes(Floats y, const Finish& finish, int64_t offset, int channel,
                                     int count, int shift) {
  y = Activate(y, finish.first, finish.first_slope, channel);
  if (finish.residual != nullptr) y += LoadSome(finish.residual + offset, count);
  if (kShifted && finish.before != nullptr) y += Load<Floats>(finish.before + channel);
  y = Activate(y, finish.second, finish.second_slope, channel);
  if (kShifted && finish.behind != nullptr) y += Load<Floats>(finish.behind + channel);
  if (finish.values != nullptr) StoreSome(finish.values + offset, y, count);
  if (kShifted && finish.threshold != nullptr) y += Load<Floats>(finish.threshold + channel);
  return finish.bits == nullptr ? 0 : NegativeLanes(y) << shift;
}

// Rounds halves away from zero, as the engine does, and saturates. The summand just below a half
// keeps 0.49999997 from reaching one.
LARQ_EXT_INLINE void StoreInt8(int8_t* to, Floats y, int count) {
  y = y > -200.0f ? y : Splat(-200.0f);
  y = y < 200.0f ? y : Splat(200.0f);
  y += y < 0.0f ? Splat(-0.49999997f) : Splat(0.49999997f);
  Ints rounded = __builtin_convertvector(y, Ints);
  rounded = rounded < -128 ? Splat(-128) : rounded;
  rounded = rounded > 127 ? Splat(127) : rounded;
  int32_t numbers[kLanes];
  Store(numbers, rounded);
  for (int i = 0; i < kLanes && i < count; ++i) to[i] = static_cast<int8_t>(numbers[i]);
}

// Turns the counts of up to 32 output channels of one pixel into outputs: `kNumber` of them, or
// `count` where that is 0. Known numbers are whole vectors.
template <class Sum, Output kKind, Finishing kFinishing, bool kAdjusted, int kNumber>
LARQ_EXT_INLINE void EmitWord(const Sum* sums, const OutputTransform& transform,
                              const int32_t* correction, int64_t offset, uint32_t* pixel_bits,
                              int channel, int count) {
  static_assert(kNumber % kLanes == 0, "no part of a vector");
  constexpr bool kShifted = kFinishing == Finishing::kShifted;
  const int number = kNumber > 0 ? kNumber : count;
  uint32_t bits = 0;
  for (int lane = 0; lane < number; lane += kLanes) {
    const int c = channel + lane;
    const int left = kNumber > 0 ? kLanes : number - lane;
    Ints x = LoadSums(sums + lane) << 1;
    if (kAdjusted) {
      if (correction != nullptr) x += Load<Ints>(correction + c);
      x = x > transform.clamp_max ? Splat(transform.clamp_max) : x;
      x = x < transform.clamp_min ? Splat(transform.clamp_min) : x;
    }
    if (kKind == Output::kBits) {
      bits |= GreaterLanes(x, Load<Ints>(transform.threshold + c)) << lane;
      continue;
    }
    const Floats y = __builtin_convertvector(x, Floats) * Load<Floats>(transform.multiplier + c) +
                     Load<Floats>(transform.bias + c);
    if (kKind == Output::kInt8) {
      StoreInt8(transform.int8 + offset + lane, y, left);
    } else if (kFinishing == Finishing::kNone) {
      StoreSome(transform.finish.values + offset + lane, y, left);
    } else {
      bits |= FinishLanes<kShifted>(y, transform.finish, offset + lane, c, left, lane);
    }
  }
  const bool writes = kKind == Output::kBits ||
                      (kKind == Output::kFloat && kFinishing != Finishing::kNone);
  if (writes && pixel_bits != nullptr) {
    StoreBits(pixel_bits, channel, number, kNumber > 0 ? bits : bits & LowBits(number));
  }
}

// The same for any number of channels.
template <class Sum, Output kKind, Finishing kFinishing, bool kAdjusted>
LARQ_EXT_INLINE void Emit(const Sum* sums, const OutputTransform& transform,
                          const int32_t* correction, int64_t offset, uint32_t* pixel_bits,
                          int channel, int count) {
  for (; count >= 32; count -= 32, sums += 32, offset += 32, channel += 32) {
    EmitWord<Sum, kKind, kFinishing, kAdjusted, 32>(sums, transform, correction, offset,
                                                    pixel_bits, channel, 32);
  }
  if (count == 16) {
    EmitWord<Sum, kKind, kFinishing, kAdjusted, 16>(sums, transform, correction, offset,
                                                    pixel_bits, channel, 16);
  } else if (count > 0) {
    EmitWord<Sum, kKind, kFinishing, kAdjusted, 0>(sums, transform, correction, offset,
                                                   pixel_bits, channel, count);
  }
}

template <bool kShifted>
void FinishRowsAs(const float* values, int64_t rows, int channels, const Finish& finish) {
  const int words = (channels + 31) / 32;
  for (int64_t row = 0; row < rows; ++row) {
    for (int start = 0; start < channels; start += 32) {
      const int here = channels - start < 32 ? channels - start : 32;
      uint32_t bits = 0;
      for (int lane = 0; lane < here; lane += kLanes) {
        const int c = start + lane;
        const int64_t offset = row * channels + c;
        bits |= FinishLanes<kShifted>(LoadSome(values + offset, here - lane), finish, offset, c,
                                      here - lane, lane);
      }
      if (finish.bits != nullptr) finish.bits[row * words + start / 32] = bits & LowBits(here);
    }
  }
}

void FinishRows(const float* values, int64_t rows, int channels, const Finish& finish) {
  const bool shifted = finish.finishing() == Finishing::kShifted;
  (shifted ? FinishRowsAs<true> : FinishRowsAs<false>)(values, rows, channels, finish);
}

void PackFloat(const float* values, int64_t rows, int channels, uint32_t* bits) {
  if (channels % 32 == 0) {  // rows without padding are one long row
    rows *= channels / 32;
    channels = 32;
  }
  for (int64_t row = 0; row < rows; ++row, values += channels) {
    for (int start = 0; start < channels; start += 32) {
      const int here = channels - start < 32 ? channels - start : 32;
      uint32_t word = 0;
      for (int lane = 0; lane < here; lane += kLanes) {
        const Floats y = LoadSome(values + start + lane, here - lane);
        word |= NegativeLanes(y) << lane;
      }
      *bits++ = word;
    }
  }
}

void PackInt8(const int8_t* values, int64_t rows, int channels, int zero_point, uint32_t* bits) {
  for (int64_t row = 0; row < rows; ++row, values += channels) {
    for (int start = 0; start < channels; start += 32) {
      const int here = channels - start < 32 ? channels - start : 32;
      uint32_t word = 0;
      for (int i = 0; i < here; ++i) word |= uint32_t{values[start + i] < zero_point} << i;
      *bits++ = word;
    }
  }
}

#include "flexbuffer.h"

#include <cstring>

namespace larq_ext {
namespace {

// Types of the FlexBuffer format; a packed type is type << 2 | log2(bytes of its elements).
constexpr uint8_t kInt = 1;
constexpr uint8_t kUInt = 2;
constexpr uint8_t kIndirectInt = 6;
constexpr uint8_t kIndirectUInt = 7;
constexpr uint8_t kMap = 9;
constexpr uint8_t kBool = 26;

bool IsWidth(uint64_t width) { return width == 1 || width == 2 || width == 4 || width == 8; }

int64_t SignExtend(uint64_t value, size_t width) {
  const int shift = 64 - 8 * static_cast<int>(width);
  return static_cast<int64_t>(value << shift) >> shift;
}

}  // namespace

bool FlexMap::ReadUnsigned(size_t position, size_t width, uint64_t* value) const {
  if (position > size_ || size_ - position < width) return false;
  *value = 0;
  for (size_t i = 0; i < width; ++i) *value |= uint64_t{data_[position + i]} << (8 * i);
  return true;
}

bool FlexMap::Follow(size_t position, size_t width, size_t* target) const {
  uint64_t offset;
  if (!ReadUnsigned(position, width, &offset) || offset > position) return false;
  *target = position - static_cast<size_t>(offset);
  return true;
}

FlexMap::FlexMap(const void* data, size_t size)
    : data_(static_cast<const uint8_t*>(data)), size_(data == nullptr ? 0 : size) {
  // The last byte is the width of the root's value, the one before its packed type.
  if (size_ < 3) return;
  const size_t root_width = data_[size_ - 1];
  const uint8_t packed_type = data_[size_ - 2];
  if (!IsWidth(root_width) || packed_type >> 2 != kMap || size_ - 2 < root_width) return;
  width_ = size_t{1} << (packed_type & 3);
  if (!Follow(size_ - 2 - root_width, root_width, &values_)) return;

  // Before the values lie, each `width_` bytes: offset of the keys, width of the keys, count.
  uint64_t count, key_width;
  if (values_ < 3 * width_ || !ReadUnsigned(values_ - width_, width_, &count)) return;
  if (!ReadUnsigned(values_ - 2 * width_, width_, &key_width) || !IsWidth(key_width)) return;
  if (!Follow(values_ - 3 * width_, width_, &keys_)) return;
  key_width_ = static_cast<size_t>(key_width);
  // Each value is followed, after all values, by a byte with its packed type.
  if (count > (size_ - values_) / (width_ + 1) || count > (size_ - keys_) / key_width_) return;
  count_ = static_cast<size_t>(count);
  valid_ = true;
}

bool FlexMap::KeyEquals(size_t position, const char* key) const {
  const size_t length = std::strlen(key) + 1;  // the terminating zero is part of a key
  return position <= size_ && size_ - position >= length &&
         std::memcmp(data_ + position, key, length) == 0;
}

bool FlexMap::GetInt(const char* key, int64_t* value) const {
  if (!valid_) return false;
  for (size_t i = 0; i < count_; ++i) {
    size_t name;
    if (!Follow(keys_ + i * key_width_, key_width_, &name) || !KeyEquals(name, key)) continue;
    const uint8_t packed_type = data_[values_ + count_ * width_ + i];
    const uint8_t type = packed_type >> 2;
    size_t position = values_ + i * width_;
    size_t width = width_;
    if (type == kIndirectInt || type == kIndirectUInt) {
      if (!Follow(position, width, &position)) return false;
      width = size_t{1} << (packed_type & 3);
    } else if (type != kInt && type != kUInt && type != kBool) {
      return false;
    }
    uint64_t bits;
    if (!ReadUnsigned(position, width, &bits)) return false;
    const bool is_signed = type == kInt || type == kIndirectInt;
    *value = is_signed ? SignExtend(bits, width) : static_cast<int64_t>(bits);
    return true;
  }
  return false;
}

}  // namespace larq_ext

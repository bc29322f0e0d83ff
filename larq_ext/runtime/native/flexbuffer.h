// Reads the options of Larq Compute Engine's operators: a FlexBuffer that holds a map.
//
// Only what those options need is read: a map at the root and scalar values in it. Every access is
// checked against the bounds of the buffer, because the buffer comes from a file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace larq_ext {

class FlexMap {
 public:
  // Looks at `size` bytes at `data`, which must outlive the object.
  FlexMap(const void* data, size_t size);

  // Reads the integer (or boolean) stored under `key`; false if there is none.
  bool GetInt(const char* key, int64_t* value) const;

 private:
  // Reads a little-endian number of `width` bytes at `position`.
  bool ReadUnsigned(size_t position, size_t width, uint64_t* value) const;
  // Follows the offset stored at `position`, which counts bytes backwards from there.
  bool Follow(size_t position, size_t width, size_t* target) const;
  bool KeyEquals(size_t position, const char* key) const;

  const uint8_t* data_;
  size_t size_;
  bool valid_ = false;
  size_t values_ = 0;      // position of the first value
  size_t width_ = 0;       // bytes of a value
  size_t keys_ = 0;        // position of the first key offset
  size_t key_width_ = 0;   // bytes of a key offset
  size_t count_ = 0;
};

}  // namespace larq_ext

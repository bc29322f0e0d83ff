// The part of a model that the delegate runs: operators, joined into as few passes over memory as
// possible.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "bconv.h"
#include "kernel.h"
#include "tflite_abi.h"
#include "thread_pool.h"

namespace larq_ext {

// Whether the delegate wants the node: one of Larq Compute Engine's operators, or a float operator
// that can be done on the way from one of those (`from_binary` tells of a tensor whether it comes
// from there).
bool IsWanted(const TfLiteContext* context, const TfLiteNode* node,
              const TfLiteRegistration* registration, const std::set<int>& from_binary);

class Graph {
 public:
  Graph(const Kernel* kernel, ThreadPool* pool) : kernel_(kernel), pool_(pool) {}

  // Reads the nodes and decides what to do in one step. Returns what is wrong, or nothing.
  std::string Build(TfLiteContext* context, const TfLiteIntArray* nodes,
                    const TfLiteIntArray* outputs);
  // Computes all shapes from those of the inputs, resizes the outputs and allocates the rest.
  std::string Prepare(TfLiteContext* context);
  // Runs all steps. If `nanoseconds` is not null, adds the time of each step to it.
  std::string Invoke(TfLiteContext* context, std::vector<int64_t>* nanoseconds);

  struct StepInfo {
    std::string name;
    std::string output;
    Shape shape;
    int64_t multiply_adds;
  };
  std::vector<StepInfo> steps() const;

 private:
  enum class Kind { kPack, kUnpack, kPool, kConv, kFinish };

  // An activation with its slopes by channel, padded for the kernels.
  struct Act {
    Activation activation = Activation::kNone;
    std::vector<float> slope;
  };
  // One pass: a binary operator, or float operators, with all that follows in registers.
  // Tensors are numbers of the model, -1 where there is none.
  struct Step {
    Kind kind = Kind::kPack;
    std::string name;
    int source = -1;
    int output = -1;  // of operators that finish nothing
    // Pooling.
    int filter_height = 0, filter_width = 0, stride_height = 0, stride_width = 0;
    bool same = false;
    // Convolution.
    std::unique_ptr<BConv> conv;
    BConv::Source source_kind = BConv::Source::kBits;
    int zero_point = 0;
    Output conv_output = Output::kFloat;
    // Finishing: y = second(first(y) + residual + before) + behind, and the signs of y + threshold.
    Act first, second;
    int residual = -1;
    std::vector<float> before, behind, threshold;  // by channel, padded for the kernels
    int values = -1;
    int bits = -1;
  };
  struct Buffer {
    size_t offset = 0;
    size_t bytes = 0;
    int first_step = 0, last_step = 0;
  };

  struct Node;
  std::string ReadNode(TfLiteContext* context, int index, Node* node) const;
  std::string ReadConv(TfLiteContext* context, const TfLiteNode& raw, Node* node) const;
  // Finishing's places, in their order: a step is filled from the first to the last.
  enum class Place { kFirst, kResidual, kBefore, kSecond, kBehind, kFull };
  // Lets `step` do what the float operator `node` does with the numbers of tensor `source`, if it
  // fits at `place` or a later one, and moves `place` behind it. At the first place all fit.
  bool Take(TfLiteContext* context, const Node& node, int source, Step* step, Place* place) const;
  // Joins to `step` the float operators that only wait for tensor `values`; returns the last node.
  int Join(TfLiteContext* context, std::vector<Node>* nodes, int last, Place place,
           Step* step) const;
  void JoinPacking(std::vector<Node>* nodes);
  void JoinThresholds();
  // Drops steps that were left to others (their source is -1), and numbers that nobody reads where
  // their signs are stored.
  void Sweep();
  std::string InferShapes(TfLiteContext* context);
  void PlaceBuffers(TfLiteContext* context);
  bool IsAsPrepared(const TfLiteContext* context, int tensor, const Shape& shape) const;
  std::vector<int> Inputs(const Step& step) const;
  std::vector<int> Outputs(const Step& step) const;
  void* Data(TfLiteContext* context, int tensor);
  void RunStep(TfLiteContext* context, Step* step);
  Finish FinishOf(TfLiteContext* context, const Step& step);

  const Kernel* kernel_;
  ThreadPool* pool_;
  std::vector<Step> steps_;
  std::set<int> external_;                // outputs of the partition
  std::map<int, std::vector<int>> users_;  // nodes that read a tensor
  std::map<int, TfLiteType> types_;  // of what the steps read and write, as the model has them
  std::map<int, Shape> shapes_;
  std::map<int, Shape> input_shapes_;  // as they were when prepared
  std::map<int, Buffer> buffers_;
  std::vector<uint8_t> arena_;
  Scratch scratch_;
};

}  // namespace larq_ext

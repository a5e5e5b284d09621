// TQue and TBuf.
#pragma once

#include "moe_jit/ascend_emulator/queue.h"

namespace AscendC {

// The pipe that fills a queue's tensors, and the one that uses them up; equal if there is nothing to wait
// for.
struct TQuePipes {
    pipe_t producer;
    pipe_t consumer;
};

constexpr TQuePipes PipesOf(TPosition source, TPosition destination) {
    if (source == TPosition::VECIN && destination == TPosition::VECOUT) return {PIPE_MTE2, PIPE_MTE3};
    switch (source) {
        case TPosition::VECIN:
            return {PIPE_MTE2, PIPE_V};
        case TPosition::VECOUT:
            return {PIPE_V, PIPE_MTE3};
        case TPosition::A1:
        case TPosition::B1:
        case TPosition::C1:
            return {PIPE_MTE2, PIPE_MTE1};
        case TPosition::A2:
        case TPosition::B2:
        case TPosition::C2:
            return {PIPE_MTE1, PIPE_M};
        case TPosition::CO1:
            return {PIPE_M, PIPE_FIX};
        default:
            return {PIPE_V, PIPE_V};
    }
}

constexpr HardEvent EventOf(pipe_t source, pipe_t destination) {
    return static_cast<HardEvent>(static_cast<int>(source) << 4 | static_cast<int>(destination));
}

template <TPosition source, TPosition destination, int32_t depth>
class TQueBind : public TBufferOwner {
  public:
    static constexpr TPosition kPosition = source;
    static constexpr const char* kKind = "TQue";

    TQueBind() = default;
    TQueBind(const TQueBind&) = delete;

    template <typename T>
    LocalTensor<T> AllocTensor(Site site = Site::here()) {
        using namespace moe_jit::emulator;
        const Synchronisation call("TQue::AllocTensor", site);
        Core& core = call.on();
        call.require(HasMemory(), Text("InitBuffer was not called"));
        next_ %= buffers.size();
        Buffer& buffer = At(next_);
        call.require(buffer.state == State::Free,
                     Text("no free buffer: all " + std::to_string(buffers.size()) + " are in use"));
        int& used = core.tensors[static_cast<int>(source)];
        call.require(used < kTensorsPerPosition, Text("more than 8 tensors of one position at a time"));
        ++used;
        if (buffer.event >= 0) Wait(buffer, EventOf(kPipes.consumer, kPipes.producer), site);
        buffer.state = State::Allocated;
        ++buffer.tensors;
        buffer.site = site;
        buffer.live = true;
        if (!core.machine.options.count_only)
            core.memory(buffer.memory).defined().clear(buffer.begin, buffer.end);
        return Tensor<T>(next_++);
    }

    template <typename T>
    bool EnQue(const LocalTensor<T>& tensor, Site site = Site::here()) {
        const moe_jit::emulator::Synchronisation call("TQue::EnQue", site);
        const size_t number = Find(call, tensor);
        Buffer& buffer = At(number);
        call.require(buffer.state != State::Queued, Text("the tensor is in the queue already"));
        call.require(buffer.state == State::Allocated, Text("the tensor is not allocated"));
        call.require(depth == 0 || static_cast<int32_t>(queued_.size()) < depth,
                     Text("depth " + std::to_string(depth) + " exceeded"));
        Set(buffer, EventOf(kPipes.producer, kPipes.consumer), site);
        buffer.state = State::Queued;
        queued_.push_back(number);
        return true;
    }

    template <typename T>
    LocalTensor<T> DeQue(Site site = Site::here()) {
        const moe_jit::emulator::Synchronisation call("TQue::DeQue", site);
        call.require(HasMemory() && !queued_.empty(), Text("the queue is empty"));
        const size_t number = queued_.front();
        Buffer& buffer = At(number);
        queued_.pop_front();
        if (buffer.event >= 0) Wait(buffer, EventOf(kPipes.producer, kPipes.consumer), site);
        buffer.state = State::Taken;
        return Tensor<T>(number);
    }

    template <typename T>
    void FreeTensor(LocalTensor<T>& tensor, Site site = Site::here()) {
        const moe_jit::emulator::Synchronisation call("TQue::FreeTensor", site);
        Buffer& buffer = At(Find(call, tensor));
        call.require(buffer.state != State::Queued, Text("the tensor is still in the queue"));
        call.require(buffer.state != State::Free, Text("the tensor is free already"));
        Set(buffer, EventOf(kPipes.consumer, kPipes.producer), site);
        buffer.state = State::Free;
        buffer.live = false;
        --call.on().tensors[static_cast<int>(source)];
    }
    template <typename T>
    void FreeTensor(LocalTensor<T>&& tensor, Site site = Site::here()) {
        FreeTensor(tensor, site);
    }

    bool HasTensorInQue() const { return !queued_.empty(); }
    bool VacantInQue() const { return depth == 0 || static_cast<int32_t>(queued_.size()) < depth; }
    int32_t GetTensorCountInQue() const { return static_cast<int32_t>(queued_.size()); }
    bool HasIdleBuffer() const {
        for (size_t i = 0; i < buffers.size(); ++i) {
            if (At(i).state == State::Free) return true;
        }
        return false;
    }

  private:
    using Buffer = moe_jit::emulator::Buffer;
    using State = Buffer::State;
    static constexpr TQuePipes kPipes = PipesOf(source, destination);

    static std::string Text(const std::string& problem) {
        return "queue protocol: " + problem + " [TQue<" + moe_jit::emulator::name_of(source) + ">]";
    }

    Buffer& At(size_t number) const {
        return moe_jit::emulator::core().buffers[static_cast<size_t>(buffers[number])];
    }

    size_t Find(const moe_jit::emulator::Synchronisation& call,
                const moe_jit::emulator::LocalView& tensor) const {
        for (size_t i = 0; i < buffers.size(); ++i) {
            if (buffers[i] == tensor.buffer) return i;
        }
        call.require(false, Text("the tensor belongs to another owner"));
        return 0;
    }

    static void Set(Buffer& buffer, HardEvent event, Site site) {
        if (kPipes.producer == kPipes.consumer) return;
        buffer.event = GetTPipePtr()->Allocate(event, site, true);
        moe_jit::emulator::set_event(event, buffer.event, site);
    }
    static void Wait(Buffer& buffer, HardEvent event, Site site) {
        moe_jit::emulator::wait_event(event, buffer.event, site);
        GetTPipePtr()->Release(event, buffer.event, site);
        buffer.event = -1;
    }

    template <typename T>
    LocalTensor<T> Tensor(size_t number) const {
        const Buffer& buffer = At(number);
        return LocalTensor<T>(
            {source, buffer.begin, buffer.end - buffer.begin, buffers[number], buffer.tensors});
    }

    size_t next_ = 0;
    std::deque<size_t> queued_;
};

template <TPosition position, int32_t depth = 1, auto mask = 0>
class TQue : public TQueBind<position, position, depth> {};

template <TPosition position = TPosition::VECCALC>
class TBuf : public TBufferOwner {
  public:
    static constexpr TPosition kPosition = position;
    static constexpr const char* kKind = "TBuf";

    template <typename T>
    LocalTensor<T> Get(Site site = Site::here()) {
        return View<T>(0, 0, site);
    }
    template <typename T>
    LocalTensor<T> Get(uint32_t length, Site site = Site::here()) {
        return View<T>(length, 0, site);
    }
    template <typename T>
    LocalTensor<T> GetWithOffset(uint32_t size, uint32_t offset, Site site = Site::here()) {
        return View<T>(size, offset, site);
    }

  private:
    template <typename T>
    LocalTensor<T> View(uint32_t size, uint32_t offset, Site site) {
        const moe_jit::emulator::Synchronisation call("TBuf::Get", site);
        call.require(HasMemory(), "InitBuffer was not called");
        auto& buffer = call.on().buffers[static_cast<size_t>(buffers[0])];
        buffer.live = true;
        const uint32_t whole = buffer.end - buffer.begin;
        const uint64_t bytes = size ? BytesOf<T>(size) : whole - offset;
        call.require(offset + bytes <= whole, "out of bounds: " + std::to_string(offset + bytes) + " of " +
                                                  std::to_string(whole) + " bytes [" + buffer.name + "]");
        return LocalTensor<T>({position, buffer.begin + offset, static_cast<uint32_t>(bytes), buffers[0], 0});
    }
};

}  // namespace AscendC

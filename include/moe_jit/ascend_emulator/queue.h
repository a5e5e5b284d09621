// On-chip memory management of the kernel language: TPipe hands out memory, TQue passes tensors from pipe to
// pipe, TBuf is scratch.
#pragma once

#include <deque>

#include "moe_jit/ascend_emulator/events.h"
#include "moe_jit/ascend_emulator/tensor.h"

namespace AscendC {

// The buffers of a queue or of a TBuf, as numbers of the core's.
class TBufferOwner {
  public:
    std::vector<int32_t> buffers;
    uint32_t resets = 0;  // of the TPipe when they were made

    bool HasMemory() const { return !buffers.empty() && resets == moe_jit::emulator::core().resets; }
};

class TPipe {
  public:
    explicit TPipe(Site site = Site::here()) { Init(site); }
    ~TPipe() { Destroy(); }
    TPipe(const TPipe&) = delete;

    void Init(Site site = Site::here()) {
        const moe_jit::emulator::Synchronisation call("TPipe", site);
        call.require(!call.on().tpipe || call.on().tpipe == this,
                     "the core has another TPipe, not yet destroyed");
        call.on().tpipe = this;
    }

    // Waits for the events of queues and gives all memory back. Tensors of queues must have been freed.
    void Destroy() {
        moe_jit::emulator::Core* core = moe_jit::emulator::current_core;
        if (!core || core->tpipe != this) return;
        Reset();
        core->tpipe = nullptr;
    }

    void Reset() {
        auto& core = moe_jit::emulator::core();
        FinishEventsOfQueues(core);
        for (auto& buffer : core.buffers) {
            if (buffer.state != moe_jit::emulator::Buffer::State::Free) NoteLeftBehind(core, buffer);
            buffer.live = false;
        }
        std::fill(core.allocated.begin(), core.allocated.end(), 0);
        ++core.resets;
    }

    template <typename Queue>
    bool InitBuffer(Queue& queue, uint8_t number, uint32_t length, Site site = Site::here()) {
        return Reserve(queue, Queue::kPosition, Queue::kKind, number, length, site);
    }
    template <typename Buffer>
    bool InitBuffer(Buffer& buffer, uint32_t length, Site site = Site::here()) {
        return Reserve(buffer, Buffer::kPosition, Buffer::kKind, 1, length, site);
    }

    template <HardEvent event>
    int32_t AllocEventID(Site site = Site::here()) {
        return Allocate(event, site);
    }
    template <HardEvent event>
    void ReleaseEventID(int32_t id, Site site = Site::here()) {
        Release(event, id, site);
    }
    // A free id that stays free: only until the next call that may take one.
    int32_t FetchEventID(HardEvent event, Site site = Site::here()) {
        const int32_t id = Allocate(event, site);
        Release(event, id, site);
        return id;
    }
    template <HardEvent event>
    int32_t FetchEventID(Site site = Site::here()) {
        return FetchEventID(event, site);
    }

    int32_t Allocate(HardEvent event, Site site, bool for_queue = false) {
        uint8_t& used = Used(event);
        for (int32_t id = 0; id < moe_jit::emulator::kEventIds; ++id) {
            if (used >> id & 1) continue;
            used |= 1 << id;
            if (for_queue) OfQueues(event) |= 1 << id;
            return id;
        }
        const moe_jit::emulator::Synchronisation call("event " + moe_jit::emulator::name_of(event), site);
        call.require(false, "all 8 event ids are in use");
        return -1;
    }
    void Release(HardEvent event, int32_t id, Site site) {
        const moe_jit::emulator::Synchronisation call("event " + moe_jit::emulator::name_of(event), site);
        call.require(id >= 0 && id < moe_jit::emulator::kEventIds && (Used(event) >> id & 1),
                     "ReleaseEventID of id " + std::to_string(id) + ", which is not allocated");
        Used(event) &= ~(1 << id);
        OfQueues(event) &= ~(1 << id);
    }

  private:
    using Ids = uint8_t[moe_jit::emulator::kPipes][moe_jit::emulator::kPipes];

    static uint8_t& At(Ids& ids, HardEvent event) {
        return ids[static_cast<int>(moe_jit::emulator::source_of(event))]
                  [static_cast<int>(moe_jit::emulator::destination_of(event))];
    }
    uint8_t& Used(HardEvent event) { return At(used_, event); }
    uint8_t& OfQueues(HardEvent event) { return At(of_queues_, event); }

    void FinishEventsOfQueues(moe_jit::emulator::Core& core) {
        using namespace moe_jit::emulator;
        for (int source = 0; source < kPipes; ++source) {
            for (int destination = 0; destination < kPipes; ++destination) {
                for (int id = 0; id < kEventIds; ++id) {
                    auto& flag = core.events[source][destination][id];
                    if (!(of_queues_[source][destination] >> id & 1) || !flag) continue;
                    core.receive(static_cast<Pipe>(destination), *flag);
                    flag.reset();
                }
                used_[source][destination] &= static_cast<uint8_t>(~of_queues_[source][destination]);
                of_queues_[source][destination] = 0;
            }
        }
    }

    static void NoteLeftBehind(moe_jit::emulator::Core& core, moe_jit::emulator::Buffer& buffer) {
        using State = moe_jit::emulator::Buffer::State;
        const bool queued = buffer.state == State::Queued;
        buffer.state = State::Free;
        --core.tensors[static_cast<int>(buffer.position)];
        if (!core.left_behind.empty()) return;
        core.left_at = buffer.site;
        core.left_behind = "queue protocol: " + buffer.name +
                           (queued ? " was enqueued and never dequeued" : " was never freed");
    }

    bool Reserve(TBufferOwner& owner, TPosition position, const char* kind, uint32_t number, uint32_t length,
                 Site site) {
        using namespace moe_jit::emulator;
        const Synchronisation call("TPipe::InitBuffer", site);
        Core& core = call.on();
        const Memory memory = memory_of(position);
        const std::string name = std::string(kind) + "<" + name_of(position) + "> of " + site.text();
        call.require(memory != Memory::GM, name + " has no on-chip memory");
        call.require(traits(memory).owner == core.kind,
                     "wrong core: " + std::string(name_of(memory)) + " belongs to the " +
                         (core.kind == CoreKind::Cube ? "vector" : "cube") + " cores [" + name + "]");
        const uint32_t unit = traits(memory).alignment;
        uint32_t& used = core.allocated[static_cast<size_t>(memory)];
        const uint32_t padded = (length + unit - 1) / unit * unit;
        call.require(length > 0 && used + static_cast<uint64_t>(number) * padded <= traits(memory).capacity,
                     format("%s over capacity: %u bytes in use, %u more asked for, %u available",
                            name_of(memory), used, number * padded, traits(memory).capacity) +
                         " [" + name + "]");
        if (owner.resets != core.resets) owner.buffers.clear();
        owner.resets = core.resets;
        for (uint32_t i = 0; i < number; ++i) {
            owner.buffers.push_back(static_cast<int32_t>(core.buffers.size()));
            core.buffers.push_back(
                {"buffer " + std::to_string(i) + " of " + name, position, memory, used, used + length});
            used += padded;
        }
        return true;
    }

    Ids used_ = {};
    Ids of_queues_ = {};
};

inline TPipe* GetTPipePtr() { return moe_jit::emulator::core().tpipe; }

}  // namespace AscendC

#include "moe_jit/ascend_emulator/queue_protocol.h"

// The checks that Instruction makes on its operands.
#pragma once

#include "moe_jit/ascend_emulator/instruction.h"

namespace moe_jit::emulator {

// Calls function(begin, end) for every run, for all of them at once where they leave no gap.
template <typename Function>
void each_run(const Runs& runs, uint64_t start, Function function) {
    if (runs.count == 1 || runs.stride == runs.bytes) {
        const uint64_t begin = start + runs.offset;
        if (runs.bytes && runs.count) function(begin, begin + runs.bytes * runs.count);
        return;
    }
    for (uint64_t run = 0; run < runs.count && runs.bytes; ++run) {
        const uint64_t begin = start + runs.offset + run * runs.stride;
        function(begin, begin + runs.bytes);
    }
}

inline std::string Instruction::explain(const Conflict& conflict, bool writes) const {
    const Pipe pipe = pipe_of(conflict.earlier.slot);
    const Core& other = *core_.machine.cores[static_cast<size_t>(core_of(conflict.earlier.slot))];
    const std::string order = std::string(writes ? "write" : "read") + " is not ordered after the " +
                              (conflict.wrote ? "write" : "read") + " by " +
                              other.pipes[static_cast<int>(pipe)].trace.text(conflict.earlier.time);
    if (&other != &core_) {
        return "race between cores: the " + order + " of " + other.name() + " (pipe " + name_of(pipe) +
               "); no cross-core flag or SyncAll lies between them";
    }
    if (pipe == pipe_) return std::string("missing PipeBarrier<PIPE_") + name_of(pipe) + ">: the " + order;
    return std::string("missing event ") + name_of(pipe) + "_" + name_of(pipe_) + ": the " + order;
}

inline void Instruction::check_tensor(const LocalView& view, Runs runs, Access access) const {
    const Memory memory = view.memory();
    if (memory == Memory::GM) raise("the tensor was never given memory", name(view));
    if (traits(memory).owner != core_.kind) {
        raise(format("wrong core: %s belongs to the %s cores", name_of(memory),
                     traits(memory).owner == CoreKind::Cube ? "cube" : "vector"),
              name(view));
    }
    uint64_t limit = traits(memory).capacity;
    if (view.buffer >= 0) {
        const Buffer& buffer = core_.buffers[static_cast<size_t>(view.buffer)];
        limit = buffer.end;
        if (!buffer.live || buffer.tensors != view.allocation) raise("the tensor was freed", name(view));
    }
    if (runs.end() > view.bytes || view.address + runs.end() > limit) {
        raise(format("out of bounds: bytes up to %llu of a tensor of %u bytes",
                     static_cast<unsigned long long>(runs.end()), view.bytes),
              name(view));
    }
    const uint32_t alignment = access.alignment ? access.alignment : traits(memory).alignment;
    const uint64_t start = view.address + runs.offset;
    if (start % alignment || (runs.count > 1 && runs.stride % alignment)) {
        raise(format("misaligned: start %llu, stride %llu, must be multiples of %u bytes",
                     static_cast<unsigned long long>(start),
                     static_cast<unsigned long long>(runs.count > 1 ? runs.stride : 0), alignment),
              name(view));
    }
}

// Flag 0: the block may be written; 1: it holds a result that may be taken.
inline void Instruction::pass_unit_flags(const LocalView& view, uint64_t begin, uint64_t end, uint8_t mode,
                                         bool writes) {
    for (uint64_t block = begin / kFlagBlock; block * kFlagBlock < end; ++block) {
        bool& full = core_.unit_flags[block];
        if (full == writes) {
            raise(writes ? "unit flag is 1: waits for a Fixpipe that was not issued before it"
                         : "unit flag is 0: waits for a Mmad with unit flag 3 that was not issued before it",
                  name(view) + ", block " + std::to_string(block));
        }
        if (mode == 3) full = writes;
    }
}

inline void Instruction::check_run(const LocalView& view, uint64_t begin, uint64_t end, Access access,
                                   bool reads, bool writes) {
    OnChipMemory& memory = core_.memory(view.memory());
    if (reads) {
        const uint64_t undefined = memory.defined().first_undefined(begin, end);
        if (undefined != end) {
            raise(format("reads undefined memory at %s byte %llu", name_of(view.memory()),
                         static_cast<unsigned long long>(undefined)),
                  name(view));
        }
    }
    if (access.unit_flag) {
        pass_unit_flags(view, begin, end, access.unit_flag, writes);
    } else {
        const uint32_t* known = core_.pipe(pipe_).known.of_core(core_.id);
        const Conflict conflict = memory.check(begin, end, writes, known, own_);
        if (conflict.found) raise(explain(conflict, writes), name(view));
    }
    if (reads) memory.record(begin, end, false, own_);
    if (!writes) return;
    memory.record(begin, end, true, own_);
    memory.defined().set(begin, end);
}

inline void* Instruction::touch(const LocalView& view, Runs runs, Access access, bool reads, bool writes) {
    check_tensor(view, runs, access);
    if (!computes()) return nullptr;
    each_run(runs, view.address,
             [&](uint64_t begin, uint64_t end) { check_run(view, begin, end, access, reads, writes); });
    return core_.memory(view.memory()).bytes() + view.address;
}

inline void Instruction::check_run(const GlobalView& view, GlobalAllocation& allocation, uint64_t begin,
                                   uint64_t end, Access access, bool reads, bool writes) {
    if (!allocation.tracked()) return;
    const Conflict conflict =
        allocation.access(begin, end, writes, access.atomic, core_.pipe(pipe_).known, own_);
    if (conflict.found) raise(explain(conflict, writes), name(view));
    if (reads || access.atomic) {
        const uint64_t undefined = allocation.defined.first_undefined(begin, end);
        if (undefined != end) {
            raise(format("reads undefined memory: nothing has written byte %llu of '%s' yet",
                         static_cast<unsigned long long>(undefined), allocation.name.c_str()),
                  name(view));
        }
    }
    if (writes) allocation.defined.set(begin, end);
}

inline void Instruction::clean(const GlobalView& view, uint64_t bytes, uint64_t dirty) {
    GlobalAllocation& allocation = *core_.machine.global->find(view.address);
    const uint64_t begin = static_cast<uint64_t>(view.address - allocation.base);
    const Conflict conflict =
        allocation.access(begin, begin + bytes, true, false, core_.pipe(pipe_).known, own_);
    if (conflict.found) raise(explain(conflict, true), name(view));
    for (uint64_t i = 0; i < bytes; ++i) {
        if (dirty >> i & 1) allocation.defined.set(begin + i, begin + i + 1);
    }
}

inline void* Instruction::touch(const GlobalView& view, Runs runs, Access access, bool reads, bool writes) {
    GlobalAllocation* allocation = core_.machine.global->find(view.address);
    if (!allocation) raise("GM address lies in no registered buffer", name(view));
    const uint64_t start = static_cast<uint64_t>(view.address - allocation->base);
    if (start + runs.end() > allocation->size || (view.bounded && runs.end() > view.bytes)) {
        raise(format("out of bounds: bytes %llu to %llu of '%s', which has %llu%s",
                     static_cast<unsigned long long>(start + runs.offset),
                     static_cast<unsigned long long>(start + runs.end()), allocation->name.c_str(),
                     static_cast<unsigned long long>(allocation->size),
                     view.bounded
                         ? format(" (tensor: %llu)", static_cast<unsigned long long>(view.bytes)).c_str()
                         : ""),
              name(view));
    }
    if (access.alignment &&
        ((start + runs.offset) % access.alignment || (runs.count > 1 && runs.stride % access.alignment))) {
        raise(format("misaligned: byte %llu of '%s' must be a multiple of %u bytes",
                     static_cast<unsigned long long>(start + runs.offset), allocation->name.c_str(),
                     access.alignment),
              name(view));
    }
    if (writes && allocation->usage == Usage::Input) raise("writes to an input of the kernel", name(view));
    if (pipe_ != Pipe::S) {
        each_run(runs, start,
                 [&](uint64_t begin, uint64_t end) { untouched_ += allocation->touch(begin, end); });
    }
    if (!computes()) return pipe_ == Pipe::S ? view.address : nullptr;
    if (pipe_ != Pipe::S && !core_.cache.lines().empty()) {
        const uint8_t* dirty = core_.cache.first_dirty(view.address + runs.offset, view.address + runs.end());
        if (dirty)
            raise("scalar write still in the data cache: DataCacheCleanAndInvalid is missing", name(view));
    }
    each_run(runs, start, [&](uint64_t begin, uint64_t end) {
        check_run(view, *allocation, begin, end, access, reads, writes);
    });
    return view.address;
}

}  // namespace moe_jit::emulator

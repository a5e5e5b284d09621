// The protocol of queues: AllocTensor, EnQue, DeQue, FreeTensor.
#include "harness.h"

namespace cases {

using In = TQue<TPosition::VECIN, 1>;

CASE(queue_alloc_beyond_buffers, AivOnly, 1) {
    TPipe pipe;
    In queue;
    pipe.InitBuffer(queue, 2, 256);
    std::vector<LocalTensor<float>> tensors;
    for (int i = 0; i < 2 + wrong; ++i) tensors.push_back(queue.AllocTensor<float>());
    for (auto& tensor : tensors) queue.FreeTensor(tensor);
}
CASE(queue_eight_tensors_of_a_position, AivOnly, 1) {
    TPipe pipe;
    In first, second;
    pipe.InitBuffer(first, 5, 256);
    pipe.InitBuffer(second, 4, 256);
    std::vector<LocalTensor<float>> tensors, others;
    for (int i = 0; i < 5; ++i) tensors.push_back(first.AllocTensor<float>());
    for (int i = 0; i < 3 + wrong; ++i) others.push_back(second.AllocTensor<float>());
    for (auto& tensor : tensors) first.FreeTensor(tensor);
    for (auto& tensor : others) second.FreeTensor(tensor);
}
CASE(queue_without_memory, AivOnly, 1) {
    TPipe pipe;
    In queue;
    if (!wrong) pipe.InitBuffer(queue, 1, 256);
    queue.FreeTensor(queue.AllocTensor<float>());
}

// One tensor through a queue; `step` is called at each stage.
template <typename Step>
void pass(In& queue, const Buffers& gm, Step step) {
    LocalTensor<float> tensor = queue.AllocTensor<float>();
    load(tensor, gm.input, 64);
    step(0, tensor);
    queue.EnQue(tensor);
    step(1, tensor);
    tensor = queue.DeQue<float>();
    increment(tensor, tensor, 64);
    step(2, tensor);
    queue.FreeTensor(tensor);
    step(3, tensor);
}

#define QUEUE_CASE(NAME, STAGE, ACTION)                                               \
    CASE(NAME, AivOnly, 1) {                                                          \
        TPipe pipe;                                                                   \
        In queue, other;                                                              \
        pipe.InitBuffer(queue, 2, 256);                                               \
        pipe.InitBuffer(other, 2, 256);                                               \
        pass(queue, gm, [&](int stage, [[maybe_unused]] LocalTensor<float>& tensor) { \
            if (wrong && stage == STAGE) ACTION;                                      \
        });                                                                           \
    }
QUEUE_CASE(queue_enque_twice, 1, queue.EnQue(tensor))
QUEUE_CASE(queue_enque_after_free, 3, queue.EnQue(tensor))
QUEUE_CASE(queue_enque_foreign, 0, other.EnQue(tensor))
QUEUE_CASE(queue_deque_empty, 0, queue.DeQue<float>())
QUEUE_CASE(queue_free_foreign, 2, other.FreeTensor(tensor))
QUEUE_CASE(queue_free_queued, 1, queue.FreeTensor(tensor))
QUEUE_CASE(queue_free_twice, 3, queue.FreeTensor(tensor))
QUEUE_CASE(queue_use_after_free, 3, increment(tensor, tensor, 64))

CASE(queue_depth_exceeded, AivOnly, 1) {
    TPipe pipe;
    In queue;
    pipe.InitBuffer(queue, 2, 256);
    LocalTensor<float> first = queue.AllocTensor<float>();
    LocalTensor<float> second = queue.AllocTensor<float>();
    queue.EnQue(first);
    if (wrong) queue.EnQue(second);
    first = queue.DeQue<float>();
    if (!wrong) queue.EnQue(second);
    second = queue.DeQue<float>();
    queue.FreeTensor(first);
    queue.FreeTensor(second);
}
CASE(queue_never_freed, AivOnly, 1) {
    TPipe pipe;
    In queue;
    pipe.InitBuffer(queue, 1, 256);
    LocalTensor<float> tensor = queue.AllocTensor<float>();
    if (!wrong) queue.FreeTensor(tensor);
}
CASE(queue_never_dequeued, AivOnly, 1) {
    TPipe pipe;
    In queue;
    pipe.InitBuffer(queue, 1, 256);
    queue.EnQue(queue.AllocTensor<float>());
    if (!wrong) queue.FreeTensor(queue.DeQue<float>());
}
// A buffer is reused while the vector pipe may still read it: EnQue and FreeTensor carry the events.
CASE(queue_carries_events, AivOnly, 1) {
    TPipe pipe;
    In in;
    TQue<TPosition::VECOUT, 1> out;
    pipe.InitBuffer(in, 2, 256);
    pipe.InitBuffer(out, 2, 256);
    for (int tile = 0; tile < 6; ++tile) {
        LocalTensor<float> source = in.AllocTensor<float>();
        load(source, gm.input[tile * 64], 64);
        in.EnQue(source);
        source = in.DeQue<float>();
        LocalTensor<float> target = out.AllocTensor<float>();
        increment(target, source, 64);
        if (wrong) store(gm.output[tile * 64], target, 64);
        out.EnQue(target);
        in.FreeTensor(source);
        target = out.DeQue<float>();
        if (!wrong) store(gm.output[tile * 64], target, 64);
        out.FreeTensor(target);
    }
}
// The input of a copy queue goes to MTE3 directly.
CASE(queue_bound_to_two_positions, AivOnly, 1) {
    TPipe pipe;
    TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> queue;
    pipe.InitBuffer(queue, 2, 256);
    LocalTensor<float> tensor = queue.AllocTensor<float>();
    load(tensor, gm.input, 64);
    queue.EnQue(tensor);
    tensor = queue.DeQue<float>();
    if (wrong)
        increment(tensor, tensor, 64);
    else
        store(gm.output, tensor, 64);
    queue.FreeTensor(tensor);
}
CASE(queue_two_pipes, AivOnly, 1) {
    TPipe first;
    if (!wrong) first.Destroy();
    TPipe second;
}
CASE(queue_events_after_reset, AivOnly, 1) {
    TPipe pipe;
    for (int phase = 0; phase < 3; ++phase) {
        In queue;
        pipe.InitBuffer(queue, 6, 16 * 1024);
        for (int tile = 0; tile < 6; ++tile) {
            LocalTensor<float> tensor = queue.AllocTensor<float>();
            load(tensor, gm.input, 64);
            queue.EnQue(tensor);
            tensor = queue.DeQue<float>();
            increment(tensor, tensor, 64);
            queue.FreeTensor(tensor);
        }
        if (!wrong) pipe.Reset();
    }
}
CASE(queue_used_after_reset, AivOnly, 1) {
    TPipe pipe;
    In queue;
    pipe.InitBuffer(queue, 1, 256);
    pipe.Reset();
    if (!wrong) pipe.InitBuffer(queue, 1, 256);
    queue.FreeTensor(queue.AllocTensor<float>());
}
CASE(queue_event_of_scratch, AivOnly, 1) {
    TPipe pipe;
    TBuf<> scratch;
    pipe.InitBuffer(scratch, 512);
    load(scratch.Get<float>(64), gm.input, 64);
    if (!wrong) {
        const auto id = pipe.FetchEventID(HardEvent::MTE2_V);
        order<HardEvent::MTE2_V>(id);
    }
    increment(scratch.GetWithOffset<float>(64, 256), scratch.Get<float>(), 64);
}

}  // namespace cases

// Tiles of rows between global memory and the vector core's buffer, of any width.
#pragma once

#include "moe_jit/ascend/gm.h"

namespace moe_jit::ascend {

// Orders dependent vector instructions.
__aicore__ inline void vector_barrier() { PipeBarrier<PIPE_V>(); }

// `rows` rows of `columns` elements. `pitch` and `local_pitch` are the distances of rows in elements; the
// last 32 bytes of a local row are filled up with zeros.
template <class T>
__aicore__ inline void load_rows(const LocalTensor<T>& local, const GlobalTensor<T>& source, int32_t rows,
                                 int32_t columns, int64_t pitch, int32_t local_pitch) {
    const uint32_t bytes = columns * sizeof(T), padded = round_up(bytes, kBlockBytes);
    const DataCopyExtParams copy(static_cast<uint16_t>(rows), bytes,
                                 static_cast<uint32_t>((pitch - columns) * sizeof(T)),
                                 static_cast<uint32_t>((local_pitch * sizeof(T) - padded) / kBlockBytes), 0);
    const DataCopyPadExtParams<T> pad(true, 0, static_cast<uint8_t>((padded - bytes) / sizeof(T)),
                                      static_cast<T>(0));
    DataCopyPad(local, source, copy, pad);
}

template <class T>
__aicore__ inline void store_rows(const GlobalTensor<T>& target, const LocalTensor<T>& local, int32_t rows,
                                  int32_t columns, int64_t pitch, int32_t local_pitch) {
    const uint32_t bytes = columns * sizeof(T), padded = round_up(bytes, kBlockBytes);
    const DataCopyExtParams copy(static_cast<uint16_t>(rows), bytes,
                                 static_cast<uint32_t>((local_pitch * sizeof(T) - padded) / kBlockBytes),
                                 static_cast<uint32_t>((pitch - columns) * sizeof(T)), 0);
    DataCopyPad(target, local, copy);
}

template <class T>
__aicore__ inline void load_vector(const LocalTensor<T>& local, const GlobalTensor<T>& source,
                                   int32_t count) {
    load_rows(local, source, 1, count, count, round_up(count, kBlockBytes / sizeof(T)));
}

template <class T>
__aicore__ inline void store_vector(const GlobalTensor<T>& target, const LocalTensor<T>& local,
                                    int32_t count) {
    store_rows(target, local, 1, count, count, round_up(count, kBlockBytes / sizeof(T)));
}

// Writes zeros over ranges of global memory that all cores share.
class ZeroFill {
  public:
    static constexpr int32_t kBytes = 8192;

    __aicore__ inline ZeroFill(TPipe& pipe, int32_t core, int32_t num_cores)
        : core_(core), num_cores_(num_cores) {
        pipe.InitBuffer(queue_, 1, kBytes);
    }

    // Bytes [begin, end) behind `base`.
    __aicore__ inline void fill(Address base, int64_t begin, int64_t end) {
        begin += static_cast<int64_t>(core_) * kBytes;
        if (begin >= end) return;
        LocalTensor<int32_t> zeros = queue_.AllocTensor<int32_t>();
        Duplicate(zeros, 0, kBytes / static_cast<int32_t>(sizeof(int32_t)));
        queue_.EnQue(zeros);
        zeros = queue_.DeQue<int32_t>();
        const LocalTensor<int8_t> bytes = zeros.ReinterpretCast<int8_t>();
        for (; begin < end; begin += static_cast<int64_t>(num_cores_) * kBytes) {
            const int64_t left = end - begin;
            store_vector(global<int8_t>(base, begin), bytes,
                         static_cast<int32_t>(left < kBytes ? left : kBytes));
        }
        queue_.FreeTensor(zeros);
    }

  private:
    TQue<TPosition::VECOUT, 1> queue_;
    int32_t core_, num_cores_;
};

}  // namespace moe_jit::ascend

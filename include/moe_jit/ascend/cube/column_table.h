// Parameters of a tile's columns on the cube core: a bias in the bias table, requantisation words in L1.
#pragma once

#include "moe_jit/ascend/cube/producer.h"

namespace moe_jit::ascend {

// The first value of the sums: int32 or fp32 as the accumulator.
template <class Accumulator>
class BiasTable {
  public:
    __aicore__ inline void init(TPipe& pipe, int32_t columns) {
        pipe.InitBuffer(l1_, 2, columns * sizeof(Accumulator));
        pipe.InitBuffer(table_, 1, columns * sizeof(Accumulator));
    }

    // To L1.
    __aicore__ inline void load(Address values, int32_t columns, int32_t padded) {
        padded_ = padded;
        const LocalTensor<Accumulator> l1 = l1_.template AllocTensor<Accumulator>();
        load_padded_vector(l1, global<Accumulator>(values), columns, padded);
        l1_.EnQue(l1);
    }
    // On to the table, when the products that read its last values are done: what the same pipe loads for
    // the next products should come before.
    __aicore__ inline LocalTensor<Accumulator> take() {
        constexpr int32_t kUnit = 64;  // bytes of a table entry
        LocalTensor<Accumulator> l1 = l1_.template DeQue<Accumulator>();
        LocalTensor<Accumulator> table = table_.template AllocTensor<Accumulator>();
        DataCopyParams copy;
        copy.blockCount = 1;
        copy.blockLen = static_cast<uint16_t>(padded_ * sizeof(Accumulator) / kUnit);
        DataCopy(table, l1, copy);
        table_.EnQue(table);
        l1_.FreeTensor(l1);
        return table_.template DeQue<Accumulator>();
    }
    __aicore__ inline void release(LocalTensor<Accumulator>& table) { table_.FreeTensor(table); }

  private:
    int32_t padded_ = 0;
    TQue<TPosition::C1, 1> l1_;
    TQue<TPosition::C2, 1> table_;
};

// Words of npu_trans_quant_param, one for each column. The store that reads them is ordered by PIPE_FIX.
class RequantTable {
  public:
    __aicore__ inline void init(TPipe& pipe, int32_t columns) {
        pipe.InitBuffer(l1_, columns * sizeof(uint64_t));
        loaded_ = pipe.AllocEventID<HardEvent::MTE2_FIX>();
        stored_ = pipe.AllocEventID<HardEvent::FIX_MTE2>();
        SetFlag<HardEvent::FIX_MTE2>(stored_);
        pipe_ = &pipe;
    }
    __aicore__ inline LocalTensor<uint64_t> load(Address words, int64_t first, int32_t columns) {
        const LocalTensor<uint64_t> table = l1_.Get<uint64_t>();
        WaitFlag<HardEvent::FIX_MTE2>(stored_);
        load_padded_vector(table.ReinterpretCast<int32_t>(), global<int32_t>(words, 2 * first), 2 * columns,
                           2 * round_up(columns, kFractal));
        SetFlag<HardEvent::MTE2_FIX>(loaded_);
        WaitFlag<HardEvent::MTE2_FIX>(loaded_);
        return table;
    }
    __aicore__ inline void release() { SetFlag<HardEvent::FIX_MTE2>(stored_); }
    __aicore__ inline void finish() {
        WaitFlag<HardEvent::FIX_MTE2>(stored_);
        pipe_->ReleaseEventID<HardEvent::FIX_MTE2>(stored_);
        pipe_->ReleaseEventID<HardEvent::MTE2_FIX>(loaded_);
    }

  private:
    TBuf<TPosition::C1> l1_;
    TPipe* pipe_ = nullptr;
    int32_t loaded_ = 0, stored_ = 0;
};

}  // namespace moe_jit::ascend

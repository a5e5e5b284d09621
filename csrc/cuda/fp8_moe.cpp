// tvm-ffi entry points of the CUDA module: unpack tensors, carve scratch memory, launch route -> experts ->
// finalize on the environment's stream. Python has validated every argument.
#include "moe_jit/cuda/binding.h"
#include "moe_jit/cuda/row_cache.h"
#include "moe_jit/cuda/workspace.h"
#include "moe_jit/ffi/fp8_moe_call.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;
using ffi::Fp8MoeCall;

void check_compiled_for(const char* what, int64_t compiled, int64_t called) {
    if (compiled != called) {
        TVM_FFI_THROW(InternalError) << "module compiled for " << what << ' ' << compiled << ", called with "
                                     << called;
    }
}

LayerShape layer_shape(const Fp8MoeCall& call) {
    return {call.num_tokens(),  call.num_experts,       call.local_num_experts, call.top_k,
            call.hidden_size(), call.intermediate_size, call.output.has_value()};
}

// Whether GEMM2 waits for values: each tile reads its rows once more, which has to be short.
bool awaits_values(const Fp8MoeCall& call, const Workspace& ws) {
    constexpr int64_t kMostTokens = 4, kMostBytes = 1024;
    return ws.list != nullptr && call.num_tokens() <= kMostTokens &&
           call.intermediate_size <= kMostBytes * ws.k_parts;
}

// Only where nearly all experts have rows; routing of more tokens leaves time for more.
int prefetched_stages(const LayerShape& shape) {
    const int64_t rows = shape.pairs() / shape.num_experts;
    return rows >= 32 ? 16 : rows >= 1 ? 4 : 0;
}

// Fewer rows stay in the cache until the next call overwrites them; of more, many are in memory already.
bool are_dropped(const uint16_t* rows, int64_t count, int64_t row_bytes, int64_t cache_bytes) {
    const int64_t bytes = count * row_bytes;
    return are_whole_lines(rows, row_bytes) && bytes >= cache_bytes / 4 && bytes <= cache_bytes * 3 / 4;
}

RouteArgs route_args(const Fp8MoeCall& call, const Workspace& ws) {
    RouteArgs args{};
    args.logits = data<const void>(call.routing_logits);
    args.logits_bf16 = ffi::is_bf16(call.routing_logits);
    args.bias = data<const void>(call.routing_bias);
    args.bias_bf16 = ffi::is_bf16(call.routing_bias);
    args.ids_in = data<const int32_t>(call.topk_ids);
    args.weights_in = data<const uint16_t>(call.topk_weights);
    args.num_tokens = static_cast<int>(call.num_tokens());
    args.num_experts = static_cast<int>(call.num_experts);
    args.top_k = static_cast<int>(call.top_k);
    args.n_group = static_cast<int>(call.n_group);
    args.topk_group = static_cast<int>(call.topk_group);
    args.scaling_factor = static_cast<float>(call.routed_scaling_factor);
    args.norm_topk_prob = call.norm_topk_prob;
    args.local_offset = static_cast<int>(call.local_expert_offset);
    args.num_local = static_cast<int>(call.local_num_experts);
    args.tile_tokens = expert_tile_tokens();
    args.replay = data<int16_t>(call.routing_replay_out);
    args.topk_ids = ws.topk_ids;
    args.topk_weights = data<uint16_t>(call.expert_weights);
    args.pair_to_row = data<int32_t>(call.expanded_idx_to_permuted_idx);
    args.row_to_pair = ws.row_to_pair;
    args.expert_offsets = ws.expert_offsets;
    args.tile_offsets = ws.tile_offsets;
    args.counters = ws.counters;
    args.list = ws.list;
    if (awaits_values(call, ws)) {
        args.awaited = reinterpret_cast<uint4*>(ws.intermediate);
        args.awaited_bytes = layer_shape(call).max_rows() * call.intermediate_size;
    }
    args.num_counters = static_cast<int>(ws.num_counters);
    args.block_counts = ws.route_scratch;
    args.pdl = call.enable_pdl;
    return args;
}

ExpertsArgs experts_args(const Fp8MoeCall& call, const Workspace& ws, const DeviceStream& device) {
    ExpertsArgs args{};
    args.hidden_states = data<const uint8_t>(call.hidden_states);
    args.gemm1_weights = data<const uint8_t>(call.gemm1_weights);
    args.gemm2_weights = data<const uint8_t>(call.gemm2_weights);
    args.linear_scale = data<const float>(call.output1_scales_scalar);
    args.gate_scale = data<const float>(call.output1_scales_gate_scalar);
    args.output_scale = data<const float>(call.output2_scales_scalar);
    args.layout = static_cast<WeightLayout>(call.weight_layout);
    args.num_tokens = static_cast<int>(call.num_tokens());
    const LayerShape shape = layer_shape(call);
    args.max_rows = shape.max_rows();
    // While an expert's rows fit one tile, neighbours in the order share no weights.
    args.from_both_ends = shape.pairs() <= shape.num_experts * expert_tile_tokens();
    args.prefetched_stages = call.enable_pdl && ws.list == nullptr ? prefetched_stages(shape) : 0;
    args.num_experts_hit = shape.experts_hit();
    args.hidden_size = static_cast<int>(call.hidden_size());
    args.intermediate_size = static_cast<int>(call.intermediate_size);
    args.num_local = static_cast<int>(call.local_num_experts);
    args.top_k = static_cast<int>(call.top_k);
    args.row_to_pair = ws.row_to_pair;
    args.expert_offsets = ws.expert_offsets;
    args.tile_offsets = ws.tile_offsets;
    args.counters = ws.counters;
    args.list = ws.list;
    args.awaits_values = awaits_values(call, ws);
    args.row_weights = call.use_routing_scales_on_input ? data<uint16_t>(call.expert_weights) : nullptr;
    args.intermediate = ws.intermediate;
    args.rows = call.output.has_value() ? ws.rows : data<uint16_t>(call.gemm2_output);
    args.row_parts = ws.k_parts > 1 ? ws.row_parts : nullptr;
    args.k_parts = ws.k_parts;
    args.rows_stay = stay_in_cache(shape.max_rows() * 2 * shape.hidden_size, device.cache_bytes());
    args.num_sms = device.num_sms();
    args.pdl = call.enable_pdl;
    return args;
}

FinalizeArgs finalize_args(const Fp8MoeCall& call, const Workspace& ws, int64_t cache_bytes) {
    FinalizeArgs args{};
    args.rows = ws.rows;
    args.row_parts = ws.k_parts > 1 ? ws.row_parts : nullptr;
    args.k_parts = ws.k_parts;
    args.max_rows = layer_shape(call).max_rows();
    args.discards = are_dropped(ws.rows, args.max_rows, 2 * call.hidden_size(), cache_bytes);
    args.routing_ended = ws.list != nullptr;
    args.pair_to_row = data<int32_t>(call.expanded_idx_to_permuted_idx);
    args.weights = call.use_routing_scales_on_input ? nullptr : data<uint16_t>(call.expert_weights);
    args.out = data<uint16_t>(call.output);
    args.num_tokens = static_cast<int>(call.num_tokens());
    args.top_k = static_cast<int>(call.top_k);
    args.hidden_size = static_cast<int>(call.hidden_size());
    args.pdl = call.enable_pdl;
    return args;
}

// The rows themselves, of their parts.
FinalizeArgs row_args(const Fp8MoeCall& call, const Workspace& ws) {
    FinalizeArgs args = finalize_args(call, ws, 0);
    args.pair_to_row = nullptr;
    args.weights = nullptr;
    args.out = data<uint16_t>(call.gemm2_output);
    args.num_tokens = static_cast<int>(args.max_rows);
    args.top_k = 1;
    return args;
}

void fp8_moe(const Fp8MoeCall& call) {
    check_compiled_for("routing method", compiled_routing_method(), call.routing_method);
    check_compiled_for("activation type", compiled_activation_type(), call.activation_type);
    const DeviceStream device(call.hidden_states);
    const cudaStream_t stream = device.stream();
    const LayerShape shape = layer_shape(call);
    const int64_t bytes = Workspace(shape, nullptr).bytes;
    const auto memory = device.allocate(bytes);
    const Workspace ws(shape, static_cast<uint8_t*>(memory.data_ptr()));

    check(launch_route(route_args(call, ws), stream), "routing");
    check(launch_experts(experts_args(call, ws, device), stream), "the expert GEMMs");
    if (call.output.has_value()) {
        check(launch_finalize(finalize_args(call, ws, device.cache_bytes()), stream), "finalize");
    } else if (ws.k_parts > 1) {
        check(launch_finalize(row_args(call, ws), stream), "the sum of parts");
    }
}

int64_t workspace_size(int64_t num_tokens, int64_t num_experts, int64_t num_local, int64_t top_k,
                       int64_t hidden_size, int64_t intermediate_size, bool do_finalize) {
    const LayerShape shape{num_tokens,  num_experts,       num_local,  top_k,
                           hidden_size, intermediate_size, do_finalize};
    return Workspace(shape, nullptr).bytes;
}

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT_FP8_MOE(moe_jit::cuda::fp8_moe)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(workspace_size, moe_jit::cuda::workspace_size)

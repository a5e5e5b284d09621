#include "moe_jit/cuda/group_schedule.cuh"

namespace moe_jit::cuda {

cudaError_t launch_group_schedule(const GroupScheduleArgs& args, cudaStream_t stream) {
    return schedule::launch_schedule(args, stream);
}

}  // namespace moe_jit::cuda

// Runs the cores' kernels as fibers of one host thread. Control moves from core to core only where a core
// waits, so that a launch is reproducible and the emulator needs no locks; races are found by clocks, not by
// interleaving.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "moe_jit/ascend_emulator/error.h"

namespace moe_jit::emulator {

class Scheduler {
  public:
    struct Task {
        std::function<void()> body;
        std::function<void()> enter;  // called whenever the task is about to run
        std::function<std::string()> name;
    };

    Scheduler() = default;
    Scheduler(const Scheduler&) = delete;

    // Runs all tasks to their end. The first exception of one ends all and is raised again; so is a deadlock.
    void run(std::vector<Task> tasks, uint32_t seed, double limit_s) {
        for (Task& task : tasks) fibers_.push_back(std::make_unique<Fiber>(std::move(task)));
        std::mt19937 random(seed);
        std::vector<Fiber*> order;
        for (auto& fiber : fibers_) order.push_back(fiber.get());
        auto progressed = std::chrono::steady_clock::now();
        while (!failure_) {
            if (seed) std::shuffle(order.begin(), order.end(), random);
            bool alive = false;
            bool progress = false;
            for (Fiber* fiber : order) {
                if (fiber->finished) continue;
                alive = true;
                if (fiber->ready && !fiber->ready()) continue;
                progress = true;
                fiber->polls = false;
                resume(*fiber);
                if (!fiber->polls) progressed = std::chrono::steady_clock::now();
                if (failure_) break;
            }
            if (!alive) break;
            const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - progressed;
            if (failure_) break;
            if (!progress)
                report_waiting("deadlock, no core can go on");
            else if (elapsed.count() > limit_s)
                report_waiting("the limit of time is over in which cores may poll");
        }
        cancel_ = true;
        for (auto& fiber : fibers_) {
            if (!fiber->finished && fiber->started) resume(*fiber);
        }
        if (failure_) std::rethrow_exception(failure_);
    }

    // Called by a task: returns once `ready` holds.
    void wait(std::function<bool()> ready, Site site, std::string what) {
        while (!ready()) {
            Fiber& self = *running_;
            self.ready = ready;
            self.site = site;
            self.waits_for = what;
            leave(self);
            self.ready = nullptr;
        }
    }

    // Lets the other tasks go on: for loops that poll memory.
    void yield(Site site) {
        running_->polls = true;
        running_->site = site;
        running_->waits_for = "a value in memory";
        leave(*running_);
    }

  private:
    struct Cancelled {};

    struct Fiber {
        explicit Fiber(Task task) : task(std::move(task)) {
            stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         -1, 0);
            if (stack == MAP_FAILED) throw std::bad_alloc();
            mprotect(stack, 4096, PROT_NONE);
        }
        ~Fiber() { munmap(stack, kStack); }
        Fiber(const Fiber&) = delete;

        Task task;
        void* stack;
        ucontext_t context;
        std::function<bool()> ready;
        Site site;
        std::string waits_for;
        bool polls = false;
        bool started = false;
        bool finished = false;
    };

    static constexpr size_t kStack = 512 * 1024;

    static Scheduler*& entering() {
        static thread_local Scheduler* scheduler = nullptr;
        return scheduler;
    }

    static void main_of_fiber() {
        Scheduler& scheduler = *entering();
        Fiber& self = *scheduler.running_;
        try {
            self.task.body();
        } catch (const Cancelled&) {
        } catch (...) {
            if (!scheduler.failure_) scheduler.failure_ = std::current_exception();
        }
        self.finished = true;
        swapcontext(&self.context, &scheduler.context_);
    }

    void resume(Fiber& fiber) {
        running_ = &fiber;
        fiber.task.enter();
        if (!fiber.started) {
            fiber.started = true;
            entering() = this;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack;
            fiber.context.uc_stack.ss_size = kStack;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, &Scheduler::main_of_fiber, 0);
        }
        swapcontext(&context_, &fiber.context);
        running_ = nullptr;
    }

    void leave(Fiber& self) {
        swapcontext(&self.context, &context_);
        if (cancel_) throw Cancelled{};
    }

    void report_waiting(const std::string& problem) {
        std::string text = problem;
        const Fiber* first = nullptr;
        int listed = 0;
        for (auto& fiber : fibers_) {
            if (fiber->finished || ++listed > 8) continue;
            if (!first) first = fiber.get();
            text +=
                "; " + fiber->task.name() + " waits for " + fiber->waits_for + " at " + fiber->site.text();
        }
        if (listed > 8) text += format("; and %d more", listed - 8);
        failure_ = std::make_exception_ptr(EmulatorError(first->site, first->task.name(), "wait", text));
    }

    std::vector<std::unique_ptr<Fiber>> fibers_;
    Fiber* running_ = nullptr;
    ucontext_t context_;
    std::exception_ptr failure_;
    bool cancel_ = false;
};

}  // namespace moe_jit::emulator

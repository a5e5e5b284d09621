// Runs the cores' kernels as fibers of one host thread. Control moves from core to core only where a core
// waits, so that a launch is reproducible and the emulator needs no locks; races are found by clocks, not by
// interleaving.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>
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
    // Without a seed the task that is furthest behind in its own time goes on; otherwise any.
    void run(std::vector<Task> tasks, uint32_t seed, double limit_s) {
        for (Task& task : tasks) fibers_.push_back(std::make_unique<Fiber>(std::move(task)));
        random_.seed(seed);
        shuffled_ = seed != 0;
        auto progressed = std::chrono::steady_clock::now();
        while (!failure_) {
            Fiber* next = choose();
            if (!next) {
                if (std::all_of(fibers_.begin(), fibers_.end(), [](auto& fiber) { return fiber->finished; }))
                    break;
                report_waiting("deadlock, no core can go on");
                break;
            }
            next->polls = false;
            resume(*next);
            const auto now = std::chrono::steady_clock::now();
            if (!next->polls) progressed = now;
            const std::chrono::duration<double> polling = now - progressed;
            if (polling.count() > limit_s && !failure_) {
                report_waiting("the limit of time is over in which cores may poll");
            }
        }
        cancel_ = true;
        for (auto& fiber : fibers_) {
            if (!fiber->finished && fiber->started) resume(*fiber);
        }
        if (failure_) std::rethrow_exception(failure_);
    }

    // Called by a task that has come to `time`: those that are behind go first.
    void pace(double time) {
        running_->time = time;
        if (time > turn_ends_) leave(*running_);
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
        if (std::isfinite(turn_ends_)) running_->time = turn_ends_;
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
        double time = 0;
        bool polls = false;
        bool started = false;
        bool finished = false;
    };

    static constexpr size_t kStack = 512 * 1024;
    static constexpr double kTurn = 64;  // cycles that a task may get ahead of the others

    Fiber* choose() {
        std::vector<Fiber*> ready;
        for (auto& fiber : fibers_) {
            if (!fiber->finished && (!fiber->ready || fiber->ready())) ready.push_back(fiber.get());
        }
        if (ready.empty()) return nullptr;
        turn_ends_ = std::numeric_limits<double>::infinity();
        if (shuffled_) return ready[random_() % ready.size()];
        const auto behind = [](const Fiber* a, const Fiber* b) { return a->time < b->time; };
        const auto first = std::min_element(ready.begin(), ready.end(), behind);
        Fiber* next = *first;
        ready.erase(first);
        if (!ready.empty())
            turn_ends_ = (*std::min_element(ready.begin(), ready.end(), behind))->time + kTurn;
        return next;
    }

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
    bool shuffled_ = false;
    std::mt19937 random_;
    double turn_ends_ = 0;
};

}  // namespace moe_jit::emulator

// Enough of CUDA for a processor to run gpunet's kernels as they stand, one thread after another.
//
// A block's threads are fibers: __syncthreads() hands over to the next one, and nobody goes on before all have come.
// Threads and blocks run in the one order or the other; a kernel whose result depends on it has a race.

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

using std::exp;
using std::expm1;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;

struct Index {
    unsigned x, y;
};
static Index gridDim, blockDim, blockIdx, threadIdx;

namespace cpu {

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    bool done;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static std::size_t running;
static void (*body)(void *);
static void *body_of;

inline void run()
{
    body(body_of);
    fibers[running].done = true;
}

// Run a block; return whether all its threads came to each __syncthreads().
inline bool run_block(bool backwards)
{
    const std::size_t threads = blockDim.x * blockDim.y;
    if (fibers.size() < threads) fibers.resize(threads);
    for (std::size_t t = 0; t < threads; ++t) {
        Fiber &fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        fiber.done = false;
        makecontext(&fiber.context, run, 0);
    }
    for (;;) {
        std::size_t done = 0;
        for (std::size_t t = 0; t < threads; ++t) {
            running = backwards ? threads - 1 - t : t;
            threadIdx = {unsigned(running % blockDim.x), unsigned(running / blockDim.x)};
            swapcontext(&scheduler, &fibers[running].context);
            done += fibers[running].done;
        }
        if (done == threads) return true;
        if (done != 0) return false;
    }
}

// What an argument is: "f4" a float, "*f4" an array of them.
template <class T> struct Code;
template <> struct Code<float> { static std::string of() { return "f4"; } };
template <> struct Code<double> { static std::string of() { return "f8"; } };
template <> struct Code<bool> { static std::string of() { return "b1"; } };
template <> struct Code<int> { static std::string of() { return "i4"; } };
template <> struct Code<unsigned> { static std::string of() { return "u4"; } };
template <> struct Code<long long> { static std::string of() { return "i8"; } };
template <class T> struct Code<T *> { static std::string of() { return "*" + Code<T>::of(); } };
template <class T> struct Code<const T *> : Code<T *> {};

template <class... A>
std::string signature(void (*)(A...))
{
    std::string all;
    ((all += Code<A>::of() + " "), ...);
    return all;
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void **arguments;

    template <std::size_t... I> void with(std::index_sequence<I...>)
    {
        kernel(*static_cast<A *>(arguments[I])...);
    }
    static void start(void *call)
    {
        static_cast<Call *>(call)->with(std::index_sequence_for<A...>());
    }
};

template <class... A>
bool launch(void (*kernel)(A...), const unsigned *sizes, void **arguments, bool backwards)
{
    Call<A...> call = {kernel, arguments};
    body = Call<A...>::start;
    body_of = &call;
    gridDim = {sizes[0], sizes[1]};
    blockDim = {sizes[2], sizes[3]};
    const unsigned blocks = gridDim.x * gridDim.y;
    for (unsigned b = 0; b < blocks; ++b) {
        const unsigned block = backwards ? blocks - 1 - b : b;
        blockIdx = {block % gridDim.x, block / gridDim.x};
        if (!run_block(backwards)) return false;
    }
    return true;
}

}  // namespace cpu

inline void __syncthreads()
{
    swapcontext(&cpu::fibers[cpu::running].context, &cpu::scheduler);
}

#define KERNEL(number, ...) \
    extern "C" const char *signature_##number() \
    { \
        static const std::string all = cpu::signature(__VA_ARGS__); \
        return all.c_str(); \
    } \
    extern "C" bool launch_##number(const unsigned *sizes, void **arguments, bool backwards) \
    { \
        return cpu::launch(__VA_ARGS__, sizes, arguments, backwards); \
    }

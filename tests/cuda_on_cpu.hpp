// Enough of CUDA for a processor to run gpunet's kernels as they stand, one thread after another.
//
// A block's threads are fibers: __syncthreads() hands over to the next one, and nobody goes on before all have come.
// Threads and blocks run in the one order or the other; a kernel whose result depends on it has a race. What a launch has
// asked for of shared memory lies between guards and is NaN when a block begins.

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define ON_CHIP static double *on_chip

using std::exp;
using std::expm1;
using std::fma;
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

// Bytes between guards.
struct Guarded {
    static const std::size_t guard = 1 << 12;
    std::vector<char> memory;

    explicit Guarded(std::size_t size) : memory(size + 2 * guard, char(0xFF)) {}
    double *begin() { return reinterpret_cast<double *>(memory.data() + guard); }
    void forget() { std::memset(memory.data(), 0xFF, memory.size()); }
    bool intact() const
    {
        for (std::size_t i = 0; i < guard; ++i)
            if (memory[i] != char(0xFF) || memory[memory.size() - 1 - i] != char(0xFF)) return false;
        return true;
    }
};

static double **shared_of_launch;  // where a program keeps the place of its shared memory, if it takes any

// Return what went wrong, or null.
template <class... A>
const char *launch(void (*kernel)(A...), const unsigned *sizes, void **arguments, bool backwards)
{
    Guarded shared(sizes[4]);
    if (shared_of_launch) *shared_of_launch = shared.begin();
    Call<A...> call = {kernel, arguments};
    body = Call<A...>::start;
    body_of = &call;
    gridDim = {sizes[0], sizes[1]};
    blockDim = {sizes[2], sizes[3]};
    const unsigned blocks = gridDim.x * gridDim.y;
    for (unsigned b = 0; b < blocks; ++b) {
        const unsigned block = backwards ? blocks - 1 - b : b;
        blockIdx = {block % gridDim.x, block / gridDim.x};
        if (!run_block(backwards)) return "not all of its threads meet";
        if (!shared.intact()) return "it writes outside of its shared memory";
        shared.forget();
    }
    return nullptr;
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
    extern "C" const char *launch_##number(const unsigned *sizes, void **arguments, bool backwards) \
    { \
        return cpu::launch(__VA_ARGS__, sizes, arguments, backwards); \
    }

// What all kernels share. These files are read one after another as one program: see kernels.py.
//
// Every kernel is the formula of gpunet's reference (gpunet/primitives.py and what it calls) in the reference's own order
// of operations, compiled without contracting a·b + c into one rounding (--fmad=false). So a kernel without exp, log
// or tanh and without sums gives the reference's numbers bit for bit. Comparisons are written so that NaN stays NaN.
//
// A stack of networks is the first axis; a single network is a stack of one. Inner arrays are contiguous.

typedef long long Long;

// All of 0, 1, ..., n - 1 that are this thread's along an axis of the grid, whatever the grid's size.
#define EACH(i, axis, n) \
    for (int i = blockIdx.axis * blockDim.axis + threadIdx.axis; i < (n); i += gridDim.axis * blockDim.axis)

const int THREADS = 256;  // of each block whose threads work together

struct Sum {
    template <class T> static __device__ T of(T one, T other) { return one + other; }
};

struct Largest {
    template <class T> static __device__ T of(T one, T other) { return one < other ? other : one; }
};

// The combination over a block's x or y (a power of 2), known to all its threads, in an order that is always the same.
// All threads of the block have to come here.
template <class Combine, class T>
__device__ T combined(T value, T *shared, int lane, int lanes, int apart)
{
    if (lanes == 1) return value;
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    shared[at] = value;
    for (int half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) shared[at] = Combine::of(shared[at], shared[at + half * apart]);
    }
    __syncthreads();
    value = shared[at - lane * apart];
    __syncthreads();  // shared is free again
    return value;
}

template <class Combine, class T>
__device__ T over_x(T value, T *shared)
{
    return combined<Combine>(value, shared, (int)threadIdx.x, (int)blockDim.x, 1);
}

template <class Combine, class T>
__device__ T over_y(T value, T *shared)
{
    return combined<Combine>(value, shared, (int)threadIdx.y, (int)blockDim.y, (int)blockDim.x);
}

// What `sums` adds up, and what of it it keeps.
struct Itself {
    template <class T> static __device__ T term(T value) { return value; }
    template <class T> static __device__ T kept(T sum) { return sum; }
};

struct HalfSquare {
    template <class T> static __device__ T term(T value) { return value * value; }
    template <class T> static __device__ T kept(T sum) { return T(0.5) * sum; }
};

// The sum over each part of each row of values (rows, m), to sums (rows, gridDim.y): bias gradients, costs, weights,
// squares. A block's x share a row; rows lie `apart` numbers apart, the sums of each `group` of them `group_apart`.
template <class T, class What>
__global__ void sums(const T *values, T *sums, int rows, int m, Long apart, int group, Long group_apart)
{
    __shared__ T shared[THREADS];
    const int each = (m + gridDim.y - 1) / gridDim.y;
    const int start = blockIdx.y * each, end = start + each < m ? start + each : m;
    for (int first = blockIdx.x * blockDim.y; first < rows; first += gridDim.x * blockDim.y) {
        const int row = first + threadIdx.y;
        T sum = 0;
        if (row < rows)
            for (int i = start + threadIdx.x; i < end; i += blockDim.x)
                sum += What::term(values[row * apart + i]);
        sum = over_x<Sum>(sum, shared);
        if (row < rows && threadIdx.x == 0)
            sums[row / group * group_apart + (Long)(row % group) * gridDim.y + blockIdx.y] = What::kept(sum);
    }
}

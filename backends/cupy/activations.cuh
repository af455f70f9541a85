// g and g' of gpunet/activations.py. The setting is a slope or alpha; rest is 1 - setting, as the host computed it.

template <class T> __device__ T at_least_0(T z) { return z < T(0) ? T(0) : z; }
template <class T> __device__ T at_most_0(T z) { return z > T(0) ? T(0) : z; }
template <class T> __device__ T size_of(T z) { return z < T(0) ? -z : z; }

template <class T> __device__ T logistic(T z)
{
    return exp(at_most_0(z)) / (T(1) + exp(-size_of(z)));
}

struct Identity {
    template <class T> static __device__ T g(T z, T, T) { return z; }
    template <class T> static __device__ T g_prime(T, T, T, T) { return T(1); }
};

struct Sigmoid {
    template <class T> static __device__ T g(T z, T, T) { return logistic(z); }
    template <class T> static __device__ T g_prime(T, T a, T, T) { return a * (T(1) - a); }
};

struct Tanh {
    template <class T> static __device__ T g(T z, T, T) { return tanh(z); }
    template <class T> static __device__ T g_prime(T, T a, T, T) { return T(1) - a * a; }
};

struct ReLU {
    template <class T> static __device__ T g(T z, T, T) { return at_least_0(z); }
    template <class T> static __device__ T g_prime(T z, T, T, T) { return T(z > T(0)); }
};

struct LeakyReLU {
    template <class T> static __device__ T g(T z, T slope, T)
    {
        return slope * z > z ? slope * z : z;
    }
    template <class T> static __device__ T g_prime(T z, T, T slope, T rest)
    {
        return slope + rest * T(z > T(0));
    }
};

struct ELU {
    template <class T> static __device__ T g(T z, T alpha, T)
    {
        return at_least_0(z) + alpha * expm1(at_most_0(z));
    }
    template <class T> static __device__ T g_prime(T z, T a, T alpha, T)
    {
        return z >= T(0) ? T(1) : a + alpha;
    }
};

struct GELU {
    template <class T> static __device__ T tanh_of(T z)
    {
        return tanh(T(0.7978845608028654) * (z + T(0.044715) * z * z * z));  // sqrt(2 / pi)
    }
    template <class T> static __device__ T g(T z, T, T)
    {
        return T(0.5) * z * (T(1) + tanh_of(z));
    }
    template <class T> static __device__ T g_prime(T z, T, T, T)
    {
        const T t = tanh_of(z);
        const T inner = T(0.7978845608028654) * (T(1) + T(3 * 0.044715) * z * z);
        return T(0.5) * (T(1) + t) + T(0.5) * z * (T(1) - t * t) * inner;
    }
};

struct SiLU {
    template <class T> static __device__ T g(T z, T, T) { return z * logistic(z); }
    template <class T> static __device__ T g_prime(T z, T a, T, T)
    {
        const T sigma = logistic(z);
        return sigma + a * (T(1) - sigma);
    }
};

struct Exponential {
    template <class T> static __device__ T g(T z, T, T) { return exp(z); }
    template <class T> static __device__ T g_prime(T, T a, T, T) { return a; }
};

// z := z + b and a = g(z), for z (networks, rows, m), of which a may take the place; networks' biases lie `bias_step`
// numbers apart.
template <class T, class G>
__global__ void activate(
    T *z, const T *bias, T *a, T setting, T rest, int networks, int rows, int m, Long bias_step)
{
    EACH(row, y, networks * rows) {
        const T b = bias[row / rows * bias_step + row % rows];
        EACH(i, x, m) {
            const Long at = (Long)row * m + i;
            const T shifted = z[at] + b;
            if (a != z) z[at] = shifted;
            a[at] = G::g(shifted, setting, rest);
        }
    }
}

// delta := delta * g'(z), n numbers.
template <class T, class G>
__global__ void pull_back(T *delta, const T *z, const T *a, T setting, T rest, int n)
{
    EACH(i, x, n) delta[i] *= G::g_prime(z[i], a[i], setting, rest);
}

// The same for rows of m numbers, and the sums of these, to sums as `sums` has them; a block's x share a row.
template <class T, class G>
__global__ void pull_back_and_sum(
    T *delta, const T *z, const T *a, T *sums, T setting, T rest, int rows, int m, int group, Long group_apart)
{
    __shared__ T shared[THREADS];
    for (int first = blockIdx.x * blockDim.y; first < rows; first += gridDim.x * blockDim.y) {
        const int row = first + threadIdx.y;
        T sum = 0;
        if (row < rows) {
            for (int i = threadIdx.x; i < m; i += blockDim.x) {
                const Long at = (Long)row * m + i;
                const T pulled = delta[at] * G::g_prime(z[at], a[at], setting, rest);
                delta[at] = pulled;
                sum += pulled;
            }
        }
        sum = over_x<Sum>(sum, shared);
        if (row < rows && threadIdx.x == 0) sums[row / group * group_apart + row % group] = sum;
    }
}

// The piece that won: the first of equal ones, and the first NaN if there is one, as argmax has it.
template <class T>
__device__ int winner(const T *z, int pieces, Long apart)
{
    int best = 0;
    for (int piece = 1; piece < pieces; ++piece) {
        const T largest = z[best * apart];
        if (largest == largest && !(z[piece * apart] <= largest)) best = piece;
    }
    return best;
}

// As `activate`; z has pieces * units rows, of which row piece * units + j belongs to unit j.
template <class T>
__global__ void activate_maxout(
    T *z, const T *bias, T *a, int pieces, int networks, int units, int m, Long bias_step)
{
    EACH(row, y, networks * units) {
        const int network = row / units, unit = row % units;
        EACH(i, x, m) {
            const Long apart = (Long)units * m;
            T *first = z + network * pieces * apart + (Long)unit * m + i;
            for (int piece = 0; piece < pieces; ++piece)
                first[piece * apart] += bias[network * bias_step + piece * units + unit];
            a[(Long)row * m + i] = first[winner(first, pieces, apart) * apart];
        }
    }
}

// From delta (networks, units, m) to pulled (networks, pieces * units, m).
template <class T>
__global__ void pull_back_maxout(
    const T *delta, const T *z, T *pulled, int pieces, int networks, int units, int m)
{
    EACH(row, y, networks * units) {
        EACH(i, x, m) {
            const Long apart = (Long)units * m;
            const Long first = row / units * pieces * apart + (Long)(row % units) * m + i;
            const int best = winner(z + first, pieces, apart);
            for (int piece = 0; piece < pieces; ++piece)
                pulled[first + piece * apart] = delta[(Long)row * m + i] * T(piece == best);
        }
    }
}

// Softmax's kernels, and those of output.cuh, give each column (an example) to the y of a block, which share its units;
// neighbours in x are neighbours in memory.

template <class T>
__global__ void activate_softmax(
    T *z, const T *bias, T *a, int networks, int units, int m, Long bias_step)
{
    __shared__ T shared[THREADS];
    for (int network = blockIdx.y; network < networks; network += gridDim.y) {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        const int end = i < m ? units : 0;
        const Long first = (Long)network * units * m + i;
        T largest = log(T(0)), sum = 0;
        for (int k = threadIdx.y; k < end; k += blockDim.y) {
            z[first + (Long)k * m] += bias[network * bias_step + k];
            largest = Largest::of(largest, z[first + (Long)k * m]);
        }
        largest = over_y<Largest>(largest, shared);
        for (int k = threadIdx.y; k < end; k += blockDim.y) {
            const T e = exp(z[first + (Long)k * m] - largest);
            a[first + (Long)k * m] = e;
            sum += e;
        }
        sum = over_y<Sum>(sum, shared);
        for (int k = threadIdx.y; k < end; k += blockDim.y) a[first + (Long)k * m] /= sum;
    }
}

// delta := (delta - sum of delta * a) * a
template <class T>
__global__ void pull_back_softmax(T *delta, const T *a, int networks, int units, int m)
{
    __shared__ T shared[THREADS];
    for (int network = blockIdx.y; network < networks; network += gridDim.y) {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        const int end = i < m ? units : 0;
        const Long first = (Long)network * units * m + i;
        T sum = 0;
        for (int k = threadIdx.y; k < end; k += blockDim.y)
            sum += delta[first + (Long)k * m] * a[first + (Long)k * m];
        sum = over_y<Sum>(sum, shared);
        for (int k = threadIdx.y; k < end; k += blockDim.y) {
            const Long at = first + (Long)k * m;
            delta[at] = (delta[at] - sum) * a[at];
        }
    }
}

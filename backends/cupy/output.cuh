// Output activation, cost and delta in one: the canonical pairs of gpunet/losses.py.

// What a thread sees of its column: its units are lane, lane + lanes, ... below `units`, 0 for a column that isn't there.
template <class T>
struct Column {
    T *z;           // units lie m apart
    const T *bias;  // 1 apart
    const T *y;     // y_unit apart
    T share;
    int units, m;
    Long y_unit;

    // z_k + b_k, kept in z's place
    __device__ T &biased(int k) const
    {
        T &at = z[(Long)k * m];
        at += bias[k];
        return at;
    }
    __device__ T target(int k) const { return y[k * y_unit]; }
};

// Cross-entropies are exact, from z, or scikit-learn's, from an a that is cut at the type's epsilon.
template <class T> struct Epsilon;
template <> struct Epsilon<float> { static constexpr double value = 0x1p-23; };
template <> struct Epsilon<double> { static constexpr double value = 0x1p-52; };

template <class T> __device__ T log_clipped(T a, bool of_the_rest)
{
    const T low = T(Epsilon<T>::value), high = T(1.0 - Epsilon<T>::value);
    a = a < low ? low : a;
    a = a > high ? high : a;
    return log(of_the_rest ? T(1) - a : a);
}

// Each pair leaves delta * share in z's place and returns its part of the example's cost.

template <bool clipped>
struct LogisticOutput {
    template <class T> static __device__ T example(const Column<T> &column, T *)
    {
        T cost = 0;
        for (int k = threadIdx.y; k < column.units; k += blockDim.y) {
            T &at = column.biased(k);
            const T z = at, y = column.target(k), a = logistic(z);
            if (clipped)
                cost -= y * log_clipped(a, false) + (T(1) - y) * log_clipped(a, true);
            else
                cost += (at_least_0(z) - y * z) + log1p(exp(-size_of(z)));
            at = (a - y) * column.share;
        }
        return cost;
    }
};

template <bool clipped>
struct SoftmaxOutput {
    template <class T> static __device__ T example(const Column<T> &column, T *shared)
    {
        T largest = log(T(0)), sum = 0, targets = 0, cost = 0;
        for (int k = threadIdx.y; k < column.units; k += blockDim.y)
            largest = Largest::of(largest, column.biased(k));
        largest = over_y<Largest>(largest, shared);
        for (int k = threadIdx.y; k < column.units; k += blockDim.y) {
            sum += exp(column.z[(Long)k * column.m] - largest);
            targets += column.target(k);
        }
        sum = over_y<Sum>(sum, shared);
        targets = over_y<Sum>(targets, shared);
        const T log_sum = log(sum);
        for (int k = threadIdx.y; k < column.units; k += blockDim.y) {
            T &at = column.z[(Long)k * column.m];
            const T z = at - largest, y = column.target(k), a = exp(z) / sum;
            cost += y * (clipped ? -log_clipped(a, false) : log_sum - z);
            at = (a * targets - y) * column.share;
        }
        return cost;
    }
};

typedef LogisticOutput<false> CrossEntropy;
typedef LogisticOutput<true> ClippedCrossEntropy;
typedef SoftmaxOutput<false> SoftmaxCrossEntropy;
typedef SoftmaxOutput<true> ClippedSoftmaxCrossEntropy;

struct SquaredError {
    template <class T> static __device__ T example(const Column<T> &column, T *)
    {
        T cost = 0;
        for (int k = threadIdx.y; k < column.units; k += blockDim.y) {
            T &at = column.biased(k);
            const T error = at - column.target(k);
            cost += error * error;
            at = error * column.share;
        }
        return T(0.5) * cost;
    }
};

struct AveragedSquaredError {
    template <class T> static __device__ T example(const Column<T> &column, T *shared)
    {
        const T cost = SquaredError::example(column, shared);
        return column.units ? cost / column.units : T(0);
    }
};

struct MeanSquaredError {
    template <class T> static __device__ T example(const Column<T> &column, T *)
    {
        T cost = 0;
        for (int k = threadIdx.y; k < column.units; k += blockDim.y) {
            T &at = column.biased(k);
            const T error = at - column.target(k);
            cost += error * error;
            at = T(2) * error * column.share;
        }
        return cost;
    }
};

// What the output layer's kernels read and write: from z (networks, units, m) to delta in its place, and the cost of each
// block's examples to costs (networks, blocks). An example's share in the average is w_i / W with W from `totals`
// (0 counts as 1) or else `number`; without weights it is `number`. Strides named *_network are 0 where all networks
// share the array.
template <class T>
struct Outputs {
    T *z;
    const T *bias, *y, *weights, *totals;
    T *costs, number;
    int units, m;
    Long bias_network, y_network, y_unit, y_example, weights_network;

    // What a block does for its columns of a network; an example belongs to its x, and the y share its units.
    template <class Pair> __device__ void take(int network, T *shared) const
    {
        const int i = blockIdx.x * blockDim.x + threadIdx.x;
        const bool there = i < m;
        T share = number;
        if (weights && there) {
            T total = number;
            if (totals) {
                total = totals[weights_network ? network : 0];
                if (!(total > T(0))) total = T(1);
            }
            share = weights[network * weights_network + i] / total;
        }
        const Column<T> column = {
            z + (Long)network * units * m + i, bias + network * bias_network,
            y + network * y_network + i * y_example, share, there ? units : 0, m, y_unit};
        T cost = over_y<Sum>(Pair::example(column, shared), shared) * share;
        cost = over_x<Sum>(cost, shared);  // 0 for a column that isn't there
        if (threadIdx.x == 0 && threadIdx.y == 0) costs[network * gridDim.x + blockIdx.x] = cost;
    }
};

template <class T, class Pair>
__global__ void output(
    T *z, const T *bias, const T *y, const T *weights, const T *totals, T *costs, T number, int networks,
    int units, int m, Long bias_network, Long y_network, Long y_unit, Long y_example, Long weights_network)
{
    __shared__ T shared[THREADS];
    const Outputs<T> outputs = {
        z, bias, y, weights, totals, costs, number, units, m, bias_network, y_network, y_unit, y_example,
        weights_network};
    for (int network = blockIdx.y; network < networks; network += gridDim.y)
        outputs.template take<Pair>(network, shared);
}

// What a step begins and ends with: its minibatch, dropout by counter (gpunet/dropout.py), its cost, the decay of weights,
// and the update rules (gpunet/optimizers.py).

// A step's row of tables that have one for each step, and the counter's next number, by a single block. A table's rows
// have so many numbers; null is no table.
template <class T>
__global__ void turn(
    Long *at, const Long *examples, Long *chosen, int n_examples, const Long *keys, Long *key, int n_keys,
    const T *rates, T *rate, int n_rates, const T *other_rates, T *other_rate, int n_other_rates)
{
    const Long row = *at;
    for (int i = threadIdx.x; i < n_examples; i += blockDim.x) chosen[i] = examples[row * n_examples + i];
    for (int i = threadIdx.x; i < n_keys; i += blockDim.x) key[i] = keys[row * n_keys + i];
    for (int i = threadIdx.x; i < n_rates; i += blockDim.x) rate[i] = rates[row * n_rates + i];
    for (int i = threadIdx.x; i < n_other_rates; i += blockDim.x) other_rate[i] = other_rates[row * n_other_rates + i];
    __syncthreads();  // all have read it
    if (threadIdx.x == 0) *at = row + 1;
}

// Chosen rows of x (n, d) and y (n, outputs), which lie *_apart from row to row, to x_rows (m, d) and y_rows (m, outputs).
template <class T>
__global__ void minibatch(
    const T *x, const T *y, const Long *examples, T *x_rows, T *y_rows, int m, int d, int outputs, Long x_apart,
    Long y_apart)
{
    EACH(i, y, m) {
        const Long example = examples[i];
        EACH(j, x, d + outputs) {
            if (j < d) x_rows[(Long)i * d + j] = x[example * x_apart + j];
            else y_rows[(Long)i * outputs + j - d] = y[example * y_apart + j - d];
        }
    }
}

// totals (networks) grow by m (cost + factor / 2 sum of Theta^2), of a cost in so many parts; a block to a network. Half of
// the squares' sum may be known: `halves`. Networks' weights are the first of P parameters.
template <class T>
__global__ void account(
    T *totals, const T *costs, const T *theta, const T *halves, const T *factors, T factor, T m, int networks,
    int parts, int weights, int P)
{
    __shared__ T shared[THREADS];
    for (int network = blockIdx.y; network < networks; network += gridDim.y) {
        T cost = 0, squares = 0;
        for (int i = threadIdx.x; i < parts; i += blockDim.x) cost += costs[network * parts + i];
        cost = over_x<Sum>(cost, shared);
        if (theta) {
            for (int p = threadIdx.x; p < weights; p += blockDim.x) {
                const T number = theta[(Long)network * P + p];
                squares += number * number;
            }
            squares = T(0.5) * over_x<Sum>(squares, shared);
        }
        if (halves) squares = halves[network];
        if (theta || halves) cost += (factors ? factors[network] : factor) * squares;
        if (threadIdx.x == 0) totals[network] += cost * m;
    }
}

__device__ inline unsigned hashed(unsigned x)
{
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    return x ^ (x >> 16);
}

// factor (networks, size): 0 for a dropped unit, else scale; dropped = a * factor. `salt` is the layer's. With `rates`
// each network has its own, in double precision, in place of threshold and scale.
template <class T>
__global__ void drop(
    const T *a, const Long *keys, T *dropped, T *factor, unsigned salt, unsigned threshold, T scale,
    const double *rates, int networks, int size, Long key_step)
{
    EACH(network, y, networks) {
        if (rates) {
            threshold = (unsigned)(Long)(rates[network] * 4294967296.0);
            scale = T(1.0 / (1.0 - rates[network]));
        }
        const unsigned mixed = hashed((unsigned)keys[network * key_step] + salt);
        EACH(i, x, size) {
            const Long at = (Long)network * size + i;
            factor[at] = T(hashed((unsigned)i ^ mixed) >= threshold) * scale;
            dropped[at] = a[at] * factor[at];
        }
    }
}

// gradient += factor * theta over the weights, the first of each network's P parameters.
template <class T>
__global__ void decay(
    T *gradient, const T *theta, const T *factors, T factor, int networks, int weights, int P)
{
    EACH(network, y, networks) {
        const T times = factors ? factors[network] : factor;
        EACH(p, x, weights) gradient[(Long)network * P + p] += times * theta[(Long)network * P + p];
    }
}

// A rule's number and 1 - number. Shared by all networks, the host computed both in double precision; where each has its
// own, as in the reference, they are T.
template <class T>
struct Number {
    T value, rest;
};

template <class T>
__device__ Number<T> own(const T *each, T value, T rest, int network)
{
    if (each) {
        value = each[network];
        rest = T(1) - value;
    }
    return {value, rest};
}

// One parameter and what its rule knows.
template <class T>
struct Step {
    T theta, gradient, slot, other_slot;
    T rate, other_rate;
    Number<T> first, second, third;
};

struct GradientDescent {
    static const int slots = 0;
    template <class T> static __device__ void update(Step<T> &s) { s.theta -= s.gradient * s.rate; }
};

struct Momentum {
    static const int slots = 1;
    template <class T> static __device__ void update(Step<T> &s)
    {
        s.slot = s.slot * s.first.value - s.gradient * s.rate;
        s.theta += s.slot;
    }
};

struct Nesterov {
    static const int slots = 1;
    template <class T> static __device__ void update(Step<T> &s)
    {
        const T step = s.gradient * s.rate;
        s.slot = s.slot * s.first.value - step;
        s.theta = (s.theta - step) + s.first.value * s.slot;
    }
};

struct Adam {
    static const int slots = 2;
    template <class T> static __device__ void update(Step<T> &s)
    {
        s.slot = s.slot * s.first.value + s.first.rest * s.gradient;
        s.other_slot = s.other_slot * s.second.value + s.gradient * s.gradient * s.second.rest;
        s.theta -= s.slot / (sqrt(s.other_slot) + s.third.value) * s.rate;
    }
};

struct NAdam {
    static const int slots = 2;
    template <class T> static __device__ void update(Step<T> &s)
    {
        s.slot = s.slot * s.first.value + s.first.rest * s.gradient;
        s.other_slot = s.other_slot * s.second.value + s.second.rest * s.gradient * s.gradient;
        const T ahead = s.first.value * s.slot + s.first.rest * s.gradient;
        s.theta -= ahead / (sqrt(s.other_slot) + s.third.value) * s.rate;
    }
};

struct AdamW {
    static const int slots = 2;
    template <class T> static __device__ void update(Step<T> &s)
    {
        s.theta -= s.other_rate * s.theta;
        Adam::update(s);
    }
};

struct RMSProp {
    static const int slots = 1;
    template <class T> static __device__ void update(Step<T> &s)
    {
        s.slot = s.slot * s.first.value + s.first.rest * s.gradient * s.gradient;
        s.theta -= s.gradient / (sqrt(s.slot) + s.second.value) * s.rate;
    }
};

// Each network's factor and how many steps it was good for, after one that was good or wasn't (gpunet/loss_scaling.py).
template <class T>
__global__ void rescale(T *factors, T *steps, const bool *good, T smallest, T largest, T patience, int networks)
{
    EACH(network, x, networks) {
        const T count = steps[network] + T(1);
        const bool lasted = count >= patience;
        T factor = factors[network];
        if (!good[network]) factor *= T(0.5);
        else if (lasted) factor *= T(2);
        factor = factor < smallest ? smallest : factor;
        factors[network] = factor > largest ? largest : factor;
        steps[network] = good[network] && !lasted ? count : T(0);
    }
}

// theta and slots (networks, P) after a step, where it is a good one (null: everywhere). The gradient is without the decay
// of the first `weights` parameters. Rates lie *_step numbers apart, 0 where all networks share them.
template <class T, class Rule>
__global__ void update(
    T *theta, const T *gradient, T *slots, T *other_slots, const T *rates, const T *other_rates, Long rate_step,
    Long other_rate_step, const T *firsts, T first, T first_rest, const T *seconds, T second, T second_rest,
    const T *thirds, T third, T third_rest, const bool *good, const T *decays, T decay, int networks, int weights, int P)
{
    EACH(network, y, networks) {
        if (good && !good[network]) continue;
        Step<T> s;
        s.first = own(firsts, first, first_rest, network);
        s.second = own(seconds, second, second_rest, network);
        s.third = own(thirds, third, third_rest, network);
        s.rate = rates[network * rate_step];
        s.other_rate = other_rates ? other_rates[network * other_rate_step] : T(0);
        const T times = decays ? decays[network] : decay;
        EACH(p, x, P) {
            const Long at = (Long)network * P + p;
            s.theta = theta[at];
            s.gradient = gradient[at];
            if (p < weights) s.gradient += times * s.theta;
            if (Rule::slots > 0) s.slot = slots[at];
            if (Rule::slots > 1) s.other_slot = other_slots[at];
            Rule::update(s);
            theta[at] = s.theta;
            if (Rule::slots > 0) slots[at] = s.slot;
            if (Rule::slots > 1) other_slots[at] = s.other_slot;
        }
    }
}

// Dropout by counter (gpunet/dropout.py), the decay of weights, and the update rules (gpunet/optimizers.py).

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

// theta and slots (networks, P) after a step, where it is a good one (null: everywhere). Rates lie *_step numbers apart, 0 where all networks share them.
template <class T, class Rule>
__global__ void update(
    T *theta, const T *gradient, T *slots, T *other_slots, const T *rates, const T *other_rates, Long rate_step,
    Long other_rate_step, const T *firsts, T first, T first_rest, const T *seconds, T second, T second_rest,
    const T *thirds, T third, T third_rest, const bool *good, int networks, int P)
{
    EACH(network, y, networks) {
        if (good && !good[network]) continue;
        Step<T> s;
        s.first = own(firsts, first, first_rest, network);
        s.second = own(seconds, second, second_rest, network);
        s.third = own(thirds, third, third_rest, network);
        s.rate = rates[network * rate_step];
        s.other_rate = other_rates ? other_rates[network * other_rate_step] : T(0);
        EACH(p, x, P) {
            const Long at = (Long)network * P + p;
            s.theta = theta[at];
            s.gradient = gradient[at];
            if (Rule::slots > 0) s.slot = slots[at];
            if (Rule::slots > 1) s.other_slot = other_slots[at];
            Rule::update(s);
            theta[at] = s.theta;
            if (Rule::slots > 0) slots[at] = s.slot;
            if (Rule::slots > 1) other_slots[at] = s.other_slot;
        }
    }
}

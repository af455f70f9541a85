// A network trained by one block: what the programs of block_recorder.py call.
//
// All threads of the block come to each of these functions, but for barriers they go their own way in it. Matrices lie
// in the block's shared memory, a column for each example of a part of the minibatch; columns lie an odd number of
// numbers apart from row to row, so that neighbours in a column are in different banks.

#ifndef ON_CHIP  // memory of the size that the launch gives
#define ON_CHIP extern __shared__ double on_chip[]
#endif
ON_CHIP;

__device__ inline int thread() { return threadIdx.y * blockDim.x + threadIdx.x; }
__device__ inline int threads() { return blockDim.x * blockDim.y; }

// All of 0, 1, ..., n - 1 that are this thread's in its block: the same ones in every loop over as many.
#define EACH_OF_BLOCK(i, n) for (int i = thread(); i < (n); i += threads())

// The sum over the block's threads (16 or more), known to all of them, in an order that is always the same.
template <class T>
__device__ T over_block(T value, T *shared)
{
    const int t = thread(), n = threads();
    shared[t] = value;
    __syncthreads();
    if (t < 16) {  // each adds up numbers that nobody else reads
        for (int i = t + 16; i < n; i += 16) value += shared[i];
        shared[t] = value;
    }
    __syncthreads();
    value = shared[0];
    for (int i = 1; i < 16; ++i) value += shared[i];
    __syncthreads();  // shared is free again
    return value;
}

// Hands left · right, for left (rows, inner) and right (inner, columns), number by number to into(i, j, number, more).
//
// A thread has `tall` rows, `down` apart, and `wide` columns, `across` apart, at a time: so it reads tall + wide
// numbers for tall · wide products. Rows and columns beyond the last are computed as the last, and not handed on.
// Groups of threads share the inner sum, each a part of it; they hand their numbers on in turn, and but for the first
// there is `more` to add. Then a tile for each thread has to be all of the product.
// Neighbours in memory lie *_down numbers apart from row to row, *_right from column to column.
template <int rows, int columns, int tall, int wide, int down, int across, int groups, class T, class Into>
__device__ __forceinline__ void product(
    const T *left, int left_down, int left_right, const T *right, int right_down, int right_right, int inner, Into into)
{
    static_assert(groups == 1 || (down * tall >= rows && across * wide >= columns), "a tile isn't all");
    // with one group all of this is known when the program is compiled, and the loop over k a plain one
    const int each = threads() / groups, group = groups == 1 ? 0 : thread() / each;
    const int of_group = groups == 1 ? thread() : thread() % each, share = (inner + groups - 1) / groups;
    const bool here = of_group < down * across && group < groups;
    if (groups == 1 && !here) return;
    const int t = here ? of_group : 0, first = group * share;
    const int last = groups == 1 || first + share < inner ? first + share : inner;
    for (int top = t / across; top < rows; top += down * tall) {
        for (int side = t % across; side < columns; side += across * wide) {
            const T *from_left[tall], *from_right[wide];
            T sum[tall][wide];
#pragma unroll
            for (int r = 0; r < tall; ++r) {
                const int i = top + r * down;
                from_left[r] = left + (rows % (down * tall) == 0 || i < rows ? i : rows - 1) * left_down;
            }
#pragma unroll
            for (int c = 0; c < wide; ++c) {
                const int j = side + c * across;
                from_right[c] = right + (columns % (across * wide) == 0 || j < columns ? j : columns - 1) * right_right;
            }
#pragma unroll
            for (int r = 0; r < tall; ++r)
#pragma unroll
                for (int c = 0; c < wide; ++c) sum[r][c] = T(0);
#pragma unroll 4
            for (int k = first; k < last; ++k) {  // those that aren't here read as well, and hand nothing on
                T a[tall], b[wide];
#pragma unroll
                for (int r = 0; r < tall; ++r) a[r] = from_left[r][k * left_right];
#pragma unroll
                for (int c = 0; c < wide; ++c) b[c] = from_right[c][k * right_down];
#pragma unroll
                for (int r = 0; r < tall; ++r)
#pragma unroll
                    for (int c = 0; c < wide; ++c) sum[r][c] = fma(a[r], b[c], sum[r][c]);
            }
#pragma unroll 1
            for (int turn = 0; turn < groups; ++turn) {
                if (here && group == turn) {
#pragma unroll
                    for (int r = 0; r < tall; ++r)
#pragma unroll
                        for (int c = 0; c < wide; ++c)
                            if (top + r * down < rows && side + c * across < columns)
                                into(top + r * down, side + c * across, sum[r][c], turn > 0);
                }
                if (groups > 1) __syncthreads();
            }
        }
    }
}

// Rows of examples, number `example(j)` the j-th, to columns of `to` (units, columns).
template <class T, class Example>
__device__ void gather(
    const T *from, Long unit_apart, Long example_apart, T *to, int units, int columns, int apart, Example example)
{
    EACH_OF_BLOCK(n, units * columns) {
        const int j = n / units, k = n % units;
        to[k * apart + j] = from[example(j) * example_apart + k * unit_apart];
    }
}

// Hands the sum over each row of delta (rows, columns) to into(row, sum).
template <class T, class Into>
__device__ void row_sums(const T *delta, int rows, int columns, int apart, Into into)
{
    EACH_OF_BLOCK(i, rows) {
        const T *row = delta + i * apart;
        T sums[4] = {T(0), T(0), T(0), T(0)};  // four at a time don't wait for each other
        int j = 0;
#pragma unroll 4
        for (; j + 4 <= columns; j += 4) {
#pragma unroll
            for (int q = 0; q < 4; ++q) sums[q] += row[j + q];
        }
        for (; j < columns; ++j) sums[0] += row[j];
        into(i, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

// From z (units, columns) to delta in its place; returns this thread's part of the cost. `example` says where an
// example's targets are, `share` what it counts in the average.
template <class Pair, class T, class Example, class Share>
__device__ T output_of(
    T *z, const T *bias, const T *y, Long y_unit, Long y_example, int units, int columns, int apart, T *shared,
    Example example, Share share)
{
    T cost = 0;
    for (int first = 0; first < columns; first += blockDim.x) {
        const int j = first + threadIdx.x;
        const bool there = j < columns;
        const Column<T> column = {
            z + (there ? j : 0), bias, y + (there ? example(j) * y_example : 0), there ? share(j) : T(0),
            there ? units : 0, apart, y_unit};
        cost += Pair::example(column, shared) * column.share;
    }
    return cost;
}

// What dropout multiplies the activation at a position with.
template <class T>
struct Kept {
    unsigned mixed, threshold;
    T scale;

    __device__ T operator()(int position) const
    {
        return T(hashed((unsigned)position ^ mixed) >= threshold) * scale;
    }
};

// theta and slots, P numbers each, after a step.
template <class Rule, class T>
__device__ void update_all(
    T *theta, const T *gradient, T *slots, T *other_slots, T rate, T other_rate, Number<T> first, Number<T> second,
    Number<T> third, int P)
{
    Step<T> s;
    s.rate = rate;
    s.other_rate = other_rate;
    s.first = first;
    s.second = second;
    s.third = third;
    EACH_OF_BLOCK(p, P) {
        s.theta = theta[p];
        s.gradient = gradient[p];
        if (Rule::slots > 0) s.slot = slots[p];
        if (Rule::slots > 1) s.other_slot = other_slots[p];
        Rule::update(s);
        theta[p] = s.theta;
        if (Rule::slots > 0) slots[p] = s.slot;
        if (Rule::slots > 1) other_slots[p] = s.other_slot;
    }
}

template <class T>
__device__ void copy(const T *from, T *to, int n)
{
    EACH_OF_BLOCK(p, n) to[p] = from[p];
}

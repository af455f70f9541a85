// Layers so small that to start a product takes longer than to compute it: the product and all that is done to its numbers
// in one kernel. A block has a tile of TILE x TILE numbers, one a thread, and brings both matrices to the chip DEEP at a
// time. Matrices lie *_down numbers apart from row to row, *_right from column to column, *_network from network to
// network; a sum adds up in the order of its terms.

const int TILE = 16, DEEP = 32;

// Memory on the chip for two parts of matrices.
template <class T>
struct Parts {
    T left[TILE][DEEP + 1], right[DEEP][TILE + 1];  // an odd number apart: in different banks
};

// The number of left (rows, inner) times right (inner, columns) in this thread's row and column of the tile that begins at
// (top, side); what lies beyond the last row or column is nobody's. All threads of the block have to come here.
template <class T>
__device__ T tile_sum(
    const T *left, Long left_down, Long left_right, const T *right, Long right_down, Long right_right, int rows,
    int columns, int inner, int top, int side, Parts<T> &parts)
{
    const int t = threadIdx.y * TILE + threadIdx.x;
    const bool along = left_right == 1, across = right_right == 1;  // neighbours are read by neighbours
    T sum = 0;
    for (int start = 0; start < inner; start += DEEP) {
        for (int n = t; n < TILE * DEEP; n += THREADS) {
            int i = along ? n / DEEP : n % TILE, k = along ? n % DEEP : n / TILE;
            const bool there = top + i < rows && start + k < inner;
            parts.left[i][k] = there ? left[(top + i) * left_down + (start + k) * left_right] : T(0);
            const int j = across ? n % TILE : n / DEEP;
            k = across ? n / TILE : n % DEEP;
            const bool here = side + j < columns && start + k < inner;
            parts.right[k][j] = here ? right[(start + k) * right_down + (side + j) * right_right] : T(0);
        }
        __syncthreads();
        for (int k = 0; k < DEEP; ++k) sum = fma(parts.left[threadIdx.y][k], parts.right[k][threadIdx.x], sum);
        __syncthreads();
    }
    return sum;
}

// How many tiles hold n rows or columns.
__device__ inline int tiles(int n) { return (n + TILE - 1) / TILE; }

// z = Theta a + b, where it is asked for, and g(z), both (networks, rows, m), from Theta (networks, rows, inputs) and a
// (networks, inputs, m).
template <class T, class G>
__global__ void forward(
    const T *Theta, const T *below, const T *bias, T *z, T *a, T setting, T rest, int networks, int rows, int inputs,
    int m, Long Theta_network, Long below_network, Long below_down, Long below_right, Long bias_network)
{
    __shared__ Parts<T> parts;
    for (int tile = blockIdx.y; tile < networks * tiles(rows); tile += gridDim.y) {
        const int network = tile / tiles(rows), top = tile % tiles(rows) * TILE, side = blockIdx.x * TILE;
        const int row = top + threadIdx.y, i = side + threadIdx.x;
        const T sum = tile_sum(
            Theta + network * Theta_network, (Long)inputs, (Long)1, below + network * below_network, below_down,
            below_right, rows, m, inputs, top, side, parts);
        if (row < rows && i < m) {
            const Long at = ((Long)network * rows + row) * m + i;
            const T shifted = sum + bias[network * bias_network + row];
            if (z) z[at] = shifted;
            a[at] = G::g(shifted, setting, rest);
        }
    }
}

// As `output`, z = Theta a before it: a column of the block's tile is an example.
template <class T, class Pair>
__global__ void output_layer(
    const T *Theta, const T *below, T *z, const T *bias, const T *y, const T *weights, const T *totals, T *costs,
    T number, int networks, int units, int m, Long bias_network, Long y_network, Long y_unit, Long y_example,
    Long weights_network, int inputs, Long Theta_network, Long below_network, Long below_down, Long below_right)
{
    __shared__ Parts<T> parts;
    __shared__ T shared[THREADS];
    const Outputs<T> outputs = {
        z, bias, y, weights, totals, costs, number, units, m, bias_network, y_network, y_unit, y_example,
        weights_network};
    for (int network = blockIdx.y; network < networks; network += gridDim.y) {
        const int side = blockIdx.x * TILE, i = side + threadIdx.x;
        for (int top = 0; top < units; top += TILE) {  // each thread computes the units that it takes
            const int k = top + threadIdx.y;
            const T sum = tile_sum(
                Theta + network * Theta_network, (Long)inputs, (Long)1, below + network * below_network, below_down,
                below_right, units, m, inputs, top, side, parts);
            if (k < units && i < m) z[((Long)network * units + k) * m + i] = sum;
        }
        outputs.template take<Pair>(network, shared);
    }
}

// A layer's gradient, D = delta a^T and the sums of delta's rows, from delta (networks, rows, m) and a (networks, inputs, m);
// then, with other tiles of the grid's x, delta of the layer below to pulled (networks, inputs, m): Theta^T delta, times
// `kept` where units were dropped, times g'. Without `pulled` the gradient alone. It goes where it belongs in the flat
// gradient (networks, P): D from number `first` on, the sums from `first_sum` on.
template <class T, class G>
__global__ void backward(
    const T *Theta, const T *delta, const T *below, T *gradient, const T *kept, const T *z, const T *a, T *pulled,
    T setting, T rest, int networks, int rows, int inputs, int m, int first, int first_sum, int P, Long Theta_network,
    Long below_network, Long below_down, Long below_right)
{
    __shared__ Parts<T> parts;
    __shared__ T shared[THREADS];
    const int of_gradient = tiles(rows) * tiles(inputs), all = of_gradient + (pulled ? tiles(inputs) * tiles(m) : 0);
    for (int network = blockIdx.y; network < networks; network += gridDim.y) {
        const T *of_network = delta + (Long)network * rows * m;
        T *D = gradient + (Long)network * P + first, *D_bias = gradient + (Long)network * P + first_sum;
        for (int tile = blockIdx.x; tile < all; tile += gridDim.x) {
            if (tile < of_gradient) {
                const int top = tile / tiles(inputs) * TILE, side = tile % tiles(inputs) * TILE;
                const int row = top + threadIdx.y, column = side + threadIdx.x;
                T sum = tile_sum(
                    of_network, (Long)m, (Long)1, below + network * below_network, below_right, below_down, rows,
                    inputs, m, top, side, parts);
                if (row < rows && column < inputs) D[(Long)row * inputs + column] = sum;
                if (side > 0) continue;  // as all of the block do
                sum = 0;
                if (row < rows)
                    for (int i = threadIdx.x; i < m; i += TILE) sum += of_network[(Long)row * m + i];
                sum = over_x<Sum>(sum, shared);
                if (row < rows && threadIdx.x == 0) D_bias[row] = sum;
            } else {
                const int top = (tile - of_gradient) / tiles(m) * TILE, side = (tile - of_gradient) % tiles(m) * TILE;
                const int unit = top + threadIdx.y, i = side + threadIdx.x;
                T sum = tile_sum(
                    Theta + network * Theta_network, (Long)1, (Long)inputs, of_network, (Long)m, (Long)1, inputs, m,
                    rows, top, side, parts);
                if (unit < inputs && i < m) {
                    const Long at = ((Long)network * inputs + unit) * m + i;
                    if (kept) sum *= kept[at];
                    pulled[at] = sum * G::g_prime(z[at], a[at], setting, rest);
                }
            }
        }
    }
}

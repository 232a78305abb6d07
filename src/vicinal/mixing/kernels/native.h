/* What the C files share: how PyTorch's threads are called, what is answered, and what is asked. */

#ifndef VICINAL_NATIVE_H
#define VICINAL_NATIVE_H

#include <stdint.h>
#include <stdlib.h>

#define SHARE (64 * 1024) /* bytes from which on work is worth another thread */

enum { FINE, NO_MEMORY, NO_SUCH_ROW, OUT_OF_RANGE, NOT_PLAIN };

/* Types of what goes in and what comes out. */
enum { FLOAT, DOUBLE, BFLOAT16, BYTE, BYTE_TO_FLOAT };

typedef int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain,
                                void (*body)(int64_t, int64_t, void *), void *context);

static inline void *memory(int64_t count, size_t size)
{
    return malloc((size_t)(count + 1) * size);
}

int vicinal_mix(parallel_for run, int kind, void *out, int64_t out_stride, void *x,
                int64_t x_stride, void *other, int64_t other_stride, int64_t other_rows,
                const int64_t *partner, const void *lam, int64_t n, int64_t columns,
                int64_t threads);
int vicinal_transposed(parallel_for run, int kind, void *out, int64_t out_stride, void *g,
                       int64_t g_stride, const int64_t *partner, const void *lam, int64_t n,
                       int64_t columns);
int vicinal_likelihood(parallel_for run, int wide, const void *exponentials, const int64_t *chosen,
                       const void *factors, int64_t rows, int64_t classes, int64_t count,
                       double least, void *totals, void *sums, void *whole);
int vicinal_likelihood_slope(parallel_for run, int wide, const void *exponentials,
                             const int64_t *chosen, const void *factors, int64_t rows,
                             int64_t classes, int64_t count, void *totals, int g_each,
                             const void *g, void *slope);
int vicinal_beta(const double *gamma, const double *uniform, double one_by_first,
                 double one_by_second, int64_t count, int wide, void *out);

#endif

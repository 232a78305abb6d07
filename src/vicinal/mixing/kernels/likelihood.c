/* CPU: the log-likelihood of a few classes of each example, from exponentials of the scores, and its
   gradient: one pass over the batch for each. See `vicinal.mixing.likelihood`. */

#include <math.h>
#include <stdatomic.h>

#include "native.h"

#define LANES 32 /* sums that run side by side, so that they can be kept in registers */

/* For each type: the sum of `n` numbers, and out = factor * numbers. */

#define NUMBERS(TYPE)                                                                              \
    static double sum_of_##TYPE(const TYPE *numbers, int64_t n)                                    \
    {                                                                                              \
        TYPE lane[LANES] = {0};                                                                    \
        int64_t c = 0;                                                                             \
        double total = 0;                                                                          \
        for (; c + LANES <= n; c += LANES)                                                         \
            for (int k = 0; k < LANES; k++)                                                        \
                lane[k] += numbers[c + k];                                                         \
        for (; c < n; c++)                                                                         \
            total += (double)numbers[c];                                                           \
        for (int k = 0; k < LANES; k++)                                                            \
            total += (double)lane[k];                                                              \
        return total;                                                                              \
    }                                                                                              \
    static void scale_##TYPE(const TYPE *restrict numbers, double factor, TYPE *restrict out,      \
                             int64_t n)                                                            \
    {                                                                                              \
        TYPE by = (TYPE)factor;                                                                    \
        for (int64_t c = 0; c < n; c++)                                                            \
            out[c] = by * numbers[c];                                                              \
    }

NUMBERS(float)
NUMBERS(double)

struct likelihood {
    const void *exponentials; /* (rows, classes) */
    const int64_t *chosen;    /* (rows, count) */
    const void *factors;      /* (rows, count) */
    int64_t classes, count;
    int wide; /* double precision */
    double least;
    void *totals, *sums; /* (rows,) */
    const void *g; /* (rows,), or one for all */
    int g_each;
    void *slope; /* (rows, classes) */
    atomic_int status;
};

static inline double number(const void *numbers, int wide, int64_t i)
{
    return wide ? ((const double *)numbers)[i] : (double)((const float *)numbers)[i];
}

static inline void put(void *numbers, int wide, int64_t i, double value)
{
    if (wide)
        ((double *)numbers)[i] = value;
    else
        ((float *)numbers)[i] = (float)value;
}

static void likelihood_rows(int64_t begin, int64_t end, void *context)
{
    struct likelihood *job = context;
    int wide = job->wide;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i * job->classes;
        double total = wide ? sum_of_double((const double *)job->exponentials + row, job->classes)
                            : sum_of_float((const float *)job->exponentials + row, job->classes);
        double sum = 0;
        int status = total <= 1 / job->least ? FINE : OUT_OF_RANGE;
        for (int64_t j = i * job->count; j < (i + 1) * job->count && status == FINE; j++) {
            int64_t class = job->chosen[j];
            if (class < 0 || class >= job->classes) {
                status = NO_SUCH_ROW;
                break;
            }
            double value = number(job->exponentials, wide, row + class);
            if (!(value >= job->least))
                status = OUT_OF_RANGE;
            sum += number(job->factors, wide, j) * log(value / total);
        }
        if (status != FINE)
            atomic_store(&job->status, status);
        put(job->totals, wide, i, total);
        put(job->sums, wide, i, sum);
    }
}

static void slope_rows(int64_t begin, int64_t end, void *context)
{
    struct likelihood *job = context;
    int wide = job->wide;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i * job->classes;
        double g = number(job->g, wide, job->g_each ? i : 0), given = 0;
        for (int64_t j = i * job->count; j < (i + 1) * job->count; j++)
            given += number(job->factors, wide, j);
        given *= -g / number(job->totals, wide, i);
        if (wide)
            scale_double((const double *)job->exponentials + row, given,
                         (double *)job->slope + row, job->classes);
        else
            scale_float((const float *)job->exponentials + row, given, (float *)job->slope + row,
                        job->classes);
        for (int64_t j = i * job->count; j < (i + 1) * job->count; j++) {
            int64_t class = job->chosen[j], at = row + class;
            if (class < 0 || class >= job->classes) /* it was in range before */
                atomic_store(&job->status, NO_SUCH_ROW);
            else
                put(job->slope, wide, at,
                    number(job->slope, wide, at) + g * number(job->factors, wide, j));
        }
    }
}

static int64_t grain(int64_t classes, int wide)
{
    return 1 + SHARE / (classes * (wide ? 8 : 4));
}

/* Write the sum of each row's exponentials, and the sum of factor * log(probability) over its chosen
   classes, for each row where `sums` is given, else of all rows. */
int vicinal_likelihood(parallel_for run, int wide, const void *exponentials, const int64_t *chosen,
                       const void *factors, int64_t rows, int64_t classes, int64_t count,
                       double least, void *totals, void *sums, void *whole)
{
    void *each = sums != NULL ? sums : memory(rows, sizeof(double));
    if (each == NULL)
        return NO_MEMORY;
    struct likelihood job = {.exponentials = exponentials,
                             .chosen = chosen,
                             .factors = factors,
                             .classes = classes,
                             .count = count,
                             .wide = wide,
                             .least = least,
                             .totals = totals,
                             .sums = each};
    run(0, rows, grain(classes, wide), likelihood_rows, &job);
    if (sums == NULL) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++)
            sum += number(each, wide, i);
        put(whole, wide, 0, sum);
        free(each);
    }
    return atomic_load(&job.status);
}

/* The gradient of that by the scores. */
int vicinal_likelihood_slope(parallel_for run, int wide, const void *exponentials,
                             const int64_t *chosen, const void *factors, int64_t rows,
                             int64_t classes, int64_t count, void *totals, int g_each,
                             const void *g, void *slope)
{
    struct likelihood job = {.exponentials = exponentials,
                             .chosen = chosen,
                             .factors = factors,
                             .classes = classes,
                             .count = count,
                             .wide = wide,
                             .totals = totals,
                             .g = g,
                             .g_each = g_each,
                             .slope = slope};
    run(0, rows, grain(classes, wide), slope_rows, &job);
    return atomic_load(&job.status);
}

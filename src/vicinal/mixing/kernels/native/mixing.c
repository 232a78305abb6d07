/* Blends the rows of a batch in about one read and one write of it, and applies the transposed map.

   Every row is followed by its partner, which is then still in cache. In place, a row is overwritten
   after its last reader. Where every row still has a reader, as in a permutation, the rows form rings;
   the first row of a ring is copied aside. Each thread works on some of the columns of all rows.

   The file needs no headers of Python or PyTorch: `__init__.py` passes addresses, and the function of
   PyTorch that runs a loop on its threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LINE 64            /* bytes of a cache line */
#define TILE (32 * 1024)   /* bytes of a row that are blended at once: two of them fit into the cache */
#define BLOCK 64           /* columns that are summed at once, in registers */
#define GRAIN (128 * 1024) /* bytes that are worth a thread */

enum { DONE, NO_MEMORY, NO_SUCH_ROW };

typedef int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain,
                                void (*body)(int64_t, int64_t, void *), void *context);

/* Conversions between narrow types and float. */

static inline float same_float(float value) { return value; }
static inline double same_double(double value) { return value; }
static inline float from_byte(uint8_t value) { return (float)value; }
static inline uint8_t to_byte(float value) { return (uint8_t)(int32_t)rintf(value); }

static inline float from_bfloat16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static inline uint16_t to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* ties to even */
    return value != value ? 0x7fc0 : (uint16_t)nearest;
}

/* For each type:
   blend: out = partner + keep * (own - partner), computed from the nearer end as torch.lerp does, so
          that the bits are the same. `out` may be `own`.
   sum:   out = the sum of share * row over `count` rows, given by their offsets from `rows`. */

typedef void (*blend_rows)(const void *partner, const void *own, double keep, void *out, int64_t n);
typedef void (*sum_rows)(const char *rows, const int64_t *offsets, const double *shares,
                         int64_t count, void *out, int64_t n);

#define BLEND(NAME, IN, OUT, WIDE, FMA, LOAD, STORE)                                               \
    static void blend_##NAME(const void *partner_, const void *own_, double keep, void *out_,      \
                             int64_t n)                                                            \
    {                                                                                              \
        const IN *partner = partner_, *own = own_;                                                 \
        OUT *out = out_;                                                                           \
        WIDE share = (WIDE)keep, rest = (WIDE)(keep - 1);                                          \
        if (share < (WIDE)0.5) {                                                                   \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                WIDE a = LOAD(partner[c]), b = LOAD(own[c]);                                       \
                out[c] = STORE(FMA(-share, a - b, a));                                             \
            }                                                                                      \
        } else {                                                                                   \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                WIDE a = LOAD(partner[c]), b = LOAD(own[c]);                                       \
                out[c] = STORE(FMA(rest, b - a, b));                                               \
            }                                                                                      \
        }                                                                                          \
    }

#define SUM(NAME, TYPE, WIDE, FMA, LOAD, STORE)                                                    \
    static void sum_##NAME(const char *rows, const int64_t *offsets, const double *shares,         \
                           int64_t count, void *out_, int64_t n)                                   \
    {                                                                                              \
        TYPE *out = out_;                                                                          \
        for (int64_t start = 0; start < n; start += BLOCK) {                                       \
            int64_t width = n - start < BLOCK ? n - start : BLOCK;                                 \
            WIDE total[BLOCK] = {0};                                                               \
            for (int64_t r = 0; r < count; r++) {                                                  \
                const TYPE *row = (const TYPE *)(rows + offsets[r]) + start;                       \
                WIDE share = (WIDE)shares[r];                                                      \
                for (int64_t c = 0; c < width; c++)                                                \
                    total[c] = FMA(share, LOAD(row[c]), total[c]);                                 \
            }                                                                                      \
            for (int64_t c = 0; c < width; c++)                                                    \
                out[start + c] = STORE(total[c]);                                                  \
        }                                                                                          \
    }

BLEND(float, float, float, float, fmaf, same_float, same_float)
BLEND(double, double, double, double, fma, same_double, same_double)
BLEND(bfloat16, uint16_t, uint16_t, float, fmaf, from_bfloat16, to_bfloat16)
BLEND(byte, uint8_t, uint8_t, float, fmaf, from_byte, to_byte)
BLEND(byte_to_float, uint8_t, float, float, fmaf, from_byte, same_float)
SUM(float, float, float, fmaf, same_float, same_float)
SUM(double, double, double, fma, same_double, same_double)
SUM(bfloat16, uint16_t, float, fmaf, from_bfloat16, to_bfloat16)

static const struct kind {
    blend_rows blend;
    sum_rows sum;
    int64_t in, out; /* bytes of a value */
    int wide;        /* whether lam is double */
} KINDS[] = {
    {blend_float, sum_float, 4, 4, 0},       {blend_double, sum_double, 8, 8, 1},
    {blend_bfloat16, sum_bfloat16, 2, 2, 0}, {blend_byte, NULL, 1, 1, 0},
    {blend_byte_to_float, NULL, 1, 4, 0},
};

/* The rows of a tensor: the address of the first one, and the bytes from one to the next. */

struct rows {
    char *start;
    int64_t stride;
};

static inline char *row_of(struct rows rows, int64_t i) { return rows.start + i * rows.stride; }

/* A step computes one row of the result, or in the transposed map, one row from several. */

enum { ALONE = -1, ASIDE = -2 }; /* no partner; the row that was copied aside */

struct step {
    int64_t own, partner;
    double keep;
};

struct job {
    const struct kind *kind;
    int64_t count, columns; /* of rows; of values in a row */
    struct rows out, x, other;
    const struct step *steps; /* of mixing */
    int64_t rings;            /* the first step that belongs to a ring, if in place */
    const int64_t *begin, *offsets; /* of the transposed map: where the terms of each row begin */
    const double *shares;
    void (*run)(const struct job *job, int64_t column, int64_t n);
};

static void run_columns(int64_t begin, int64_t end, void *context)
{
    const struct job *job = context;
    int64_t line = LINE / job->kind->in, tile = TILE / job->kind->in;
    int64_t last = end * line < job->columns ? end * line : job->columns;
    for (int64_t column = begin * line; column < last; column += tile)
        job->run(job, column, last - column < tile ? last - column : tile);
}

static void run_job(parallel_for run, struct job *job)
{
    int64_t lines = (job->columns * job->kind->in + LINE - 1) / LINE;
    run(0, lines, 1 + GRAIN / (job->count * LINE + 1), run_columns, job);
}

static void mix_columns(const struct job *job, int64_t column, int64_t n)
{
    const struct kind *kind = job->kind;
    int64_t in = column * kind->in, out = column * kind->out, bytes = n * kind->in;
    char aside[TILE];
    int open = 0; /* whether a ring was entered, whose first row is aside */
    for (int64_t s = 0; s < job->count; s++) {
        struct step step = job->steps[s];
        char *own = row_of(job->x, step.own) + in, *new = row_of(job->out, step.own) + out;
        if (s >= job->rings) {
            if (!open)
                memcpy(aside, own, (size_t)bytes);
            open = step.partner != ASIDE;
        }
        if (step.partner == ASIDE)
            kind->blend(aside, own, step.keep, new, n);
        else if (step.partner != ALONE)
            kind->blend(row_of(job->other, step.partner) + in, own, step.keep, new, n);
        else if (kind->in != kind->out)
            kind->blend(own, own, 1, new, n);
        else if (new != own)
            memcpy(new, own, (size_t)bytes);
    }
}

/* Read the partners and shares, once: another thread may change them meanwhile. */
static int read_steps(struct step *steps, const int64_t *partner, const void *lam, int64_t count,
                      int64_t rows, int wide, int itself)
{
    for (int64_t i = 0; i < count; i++) {
        double keep = wide ? ((const double *)lam)[i] : (double)((const float *)lam)[i];
        steps[i] = (struct step){i, partner[i], keep};
        if (steps[i].partner < 0 || steps[i].partner >= rows)
            return NO_SUCH_ROW;
        if (keep == 1 || (itself && steps[i].partner == i))
            steps[i].partner = ALONE;
    }
    return DONE;
}

/* Put the steps into an order in which no row is written before it was read; return the first step of
   those that form rings, whose last one reads the row aside. */
static int64_t sort_steps(struct step *ordered, const struct step *steps, int64_t count,
                          int64_t *readers, char *left)
{
    int64_t done = 0;
    memset(readers, 0, (size_t)count * sizeof *readers);
    for (int64_t i = 0; i < count; i++) {
        left[i] = steps[i].partner != ALONE;
        if (left[i])
            readers[steps[i].partner]++;
        else
            ordered[done++] = steps[i];
    }
    for (int64_t start = 0; start < count; start++)
        for (int64_t i = start; left[i] && readers[i] == 0; readers[i]--) {
            left[i] = 0;
            ordered[done++] = steps[i];
            i = steps[i].partner;
        }
    int64_t rings = done;
    for (int64_t start = 0; start < count; start++)
        for (int64_t i = start; left[i]; i = steps[i].partner) {
            left[i] = 0;
            ordered[done] = steps[i];
            if (steps[i].partner == start)
                ordered[done].partner = ASIDE;
            done++;
        }
    return rings;
}

int vicinal_mix(parallel_for run, int kind, int64_t count, int64_t columns, const int64_t *partner,
                const void *lam, void *out, int64_t out_stride, void *x, int64_t x_stride, void *other,
                int64_t other_stride, int64_t other_rows)
{
    /* The first rows of a larger batch begin at the same address as the batch. */
    int itself = other == x && other_rows == count && other_stride == x_stride;
    struct job job = {.kind = KINDS + kind, .count = count, .columns = columns, .rings = count,
                      .out = {out, out_stride * KINDS[kind].out},
                      .x = {x, x_stride * KINDS[kind].in},
                      .other = {other, other_stride * KINDS[kind].in},
                      .run = mix_columns};
    struct step *steps = malloc((size_t)(count + 1) * (2 * sizeof *steps + sizeof(int64_t) + 1));
    if (steps == NULL)
        return NO_MEMORY;
    job.steps = steps;
    int status = read_steps(steps, partner, lam, count, other_rows, KINDS[kind].wide, itself);
    if (status == DONE && itself) {
        struct step *ordered = steps + count;
        int64_t *readers = (int64_t *)(ordered + count);
        job.rings = sort_steps(ordered, steps, count, readers, (char *)(readers + count));
        job.steps = ordered;
    }
    if (status == DONE)
        run_job(run, &job);
    free(steps);
    return status;
}

static void gather_columns(const struct job *job, int64_t column, int64_t n)
{
    const struct kind *kind = job->kind;
    int64_t bytes = column * kind->in;
    for (int64_t i = 0; i < job->count; i++) {
        int64_t at = job->begin[i], terms = job->begin[i + 1] - at;
        char *new = row_of(job->out, i) + bytes;
        if (terms == 1 && job->shares[at] == 1)
            memcpy(new, row_of(job->x, i) + bytes, (size_t)(n * kind->in));
        else
            kind->sum(job->x.start + bytes, job->offsets + at, job->shares + at, terms, new, n);
    }
}

/* The transposed map: each row gets its own share, and what its readers give to it. */
int vicinal_transposed(parallel_for run, int kind, int64_t count, int64_t columns,
                       const int64_t *partner, const void *lam, void *out, int64_t out_stride,
                       void *g, int64_t g_stride)
{
    struct job job = {.kind = KINDS + kind, .count = count, .columns = columns,
                      .out = {out, out_stride * KINDS[kind].out},
                      .x = {g, g_stride * KINDS[kind].in},
                      .run = gather_columns};
    struct step *steps = malloc((size_t)(count + 1) * (sizeof *steps + 6 * sizeof(int64_t)));
    if (steps == NULL)
        return NO_MEMORY;
    int64_t *begin = (int64_t *)(steps + count), *next = begin + count + 1;
    int64_t *offsets = next + count;
    double *shares = (double *)(offsets + 2 * count);
    int status = read_steps(steps, partner, lam, count, count, KINDS[kind].wide, 1);
    if (status == DONE) {
        for (int64_t i = 0; i < count; i++)
            next[i] = 1;
        for (int64_t i = 0; i < count; i++)
            if (steps[i].partner != ALONE)
                next[steps[i].partner]++;
        begin[0] = 0;
        for (int64_t i = 0; i < count; i++) {
            begin[i + 1] = begin[i] + next[i];
            next[i] = begin[i] + 1;
            offsets[begin[i]] = i * job.x.stride;
            shares[begin[i]] = steps[i].partner == ALONE ? 1 : steps[i].keep;
        }
        for (int64_t i = 0; i < count; i++)
            if (steps[i].partner != ALONE) {
                int64_t at = next[steps[i].partner]++;
                offsets[at] = i * job.x.stride;
                shares[at] = 1 - steps[i].keep;
            }
        job.begin = begin, job.offsets = offsets, job.shares = shares;
        run_job(run, &job);
    }
    free(steps);
    return status;
}

/* CPU: rows blended column by column in one read and one write of the batch.

   Rows are walked in an order in which each is followed by its partner, which is in cache when it is
   its turn to be written. In place a row is overwritten once nobody is left who reads it; where that
   never comes, as in a permutation, rows form rings, each of which is opened by a copy of one row.
   Threads have each a part of the steps, or where rows are long, some columns of all of them.

   Plain C without a header of Python or PyTorch: `native.py` hands over addresses, through `python.c`,
   and the function of PyTorch that runs a loop on its threads. */

#include <math.h>
#include <string.h>

#include "native.h"

#define LINE 64          /* bytes that a cache moves together */
#define TILE (32 * 1024) /* bytes of a row that are blended at once: two of them fit a core's cache */
#define AHEAD 512        /* bytes of the next row to ask for while this one is blended */
#define BLOCK 64         /* numbers that are summed at once, in registers */
#define SHARE_IN_PLACE (256 * 1024) /* SHARE for short rows in place, which take less time */

/* Numbers of narrow types, as float and back. */

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

/* What is done with pieces of rows, for each type:

   blend: out = met + keep * (own - met), from the nearer end, as torch.lerp. `out` may be `own`. The
          signs are such that no number needs to be loaded twice: 4 to 7 % of 512x3x32x32.
   sum:   out = the sum of share * row over `count` rows, which lie at offsets from `rows`. */

typedef void (*blend_rows)(const void *met, const void *own, double keep, void *out, int64_t n);
typedef void (*sum_rows)(const char *rows, const int64_t *offsets, const double *shares,
                         int64_t count, void *out, int64_t n);

#define BLEND(NAME, IN, OUT, WIDE, FMA, LOAD, STORE)                                               \
    static void blend_##NAME(const void *met_, const void *own_, double keep, void *out_,          \
                             int64_t n)                                                            \
    {                                                                                              \
        const IN *met = met_, *own = own_;                                                         \
        OUT *out = out_;                                                                           \
        WIDE share = (WIDE)keep, given = (WIDE)(keep - 1);                                         \
        if (share < (WIDE)0.5) {                                                                   \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                WIDE a = LOAD(met[c]), b = LOAD(own[c]);                                           \
                out[c] = STORE(FMA(-share, a - b, a));                                             \
            }                                                                                      \
        } else {                                                                                   \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                WIDE a = LOAD(met[c]), b = LOAD(own[c]);                                           \
                out[c] = STORE(FMA(given, b - a, b));                                              \
            }                                                                                      \
        }                                                                                          \
    }

#define SUM(NAME, TYPE, WIDE, FMA, LOAD, STORE)                                                    \
    static void sum_##NAME(const char *rows, const int64_t *offsets, const double *shares,         \
                           int64_t count, void *out_, int64_t n)                                   \
    {                                                                                              \
        TYPE *out = out_;                                                                          \
        if (count == 2) {                                                                          \
            const TYPE *own = (const TYPE *)(rows + offsets[0]);                                   \
            const TYPE *reader = (const TYPE *)(rows + offsets[1]);                                \
            WIDE keep = (WIDE)shares[0], given = (WIDE)shares[1];                                  \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
                out[c] = STORE(FMA(given, LOAD(reader[c]), keep * LOAD(own[c])));                  \
            return;                                                                                \
        }                                                                                          \
        for (int64_t start = 0; start < n; start += BLOCK) {                                       \
            int64_t width = n - start < BLOCK ? n - start : BLOCK;                                 \
            WIDE total[BLOCK];                                                                     \
            const TYPE *row = (const TYPE *)(rows + offsets[0]) + start;                           \
            WIDE share = (WIDE)shares[0];                                                          \
            for (int64_t c = 0; c < width; c++)                                                    \
                total[c] = share * LOAD(row[c]);                                                   \
            for (int64_t r = 1; r < count; r++) {                                                  \
                row = (const TYPE *)(rows + offsets[r]) + start;                                   \
                share = (WIDE)shares[r];                                                           \
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
    int64_t in, out; /* bytes of a number */
} KINDS[] = {
    {blend_float, sum_float, 4, 4},       {blend_double, sum_double, 8, 8},
    {blend_bfloat16, sum_bfloat16, 2, 2}, {blend_byte, NULL, 1, 1},
    {blend_byte_to_float, NULL, 1, 4},
};

/* The rows of a tensor: where they begin, and the bytes from one to the next. */

struct rows {
    char *start;
    int64_t stride;
};

static inline char *row_of(struct rows rows, int64_t i) { return rows.start + i * rows.stride; }

/* What each row keeps, and which row it meets. */

enum { ALONE = -1, FIRST = -2 }; /* no partner; the row of the ring that was kept aside */

struct shares {
    const int64_t *partner; /* may change under our eyes: read once, then trusted */
    const void *lam;
    int64_t count;
    int wide, itself; /* lam in double precision; partners are rows of the batch itself */
};

static inline double keep_of(const struct shares *shares, int64_t i)
{
    return shares->wide ? ((const double *)shares->lam)[i]
                        : (double)((const float *)shares->lam)[i];
}

/* Read the partners, once: ALONE for a row that takes nothing from another. Whether all are rows. */
static int read_partners(int32_t *met, const struct shares *shares, int64_t rows)
{
    for (int64_t i = 0; i < shares->count; i++) {
        int64_t partner = shares->partner[i];
        if (partner < 0 || partner >= rows)
            return 0;
        int alone = keep_of(shares, i) == 1 || (shares->itself && partner == i);
        met[i] = alone ? ALONE : (int32_t)partner;
    }
    return 1;
}

/* What is done to each of `count` rows, and how it is divided over the threads: by columns, or by rows
   where those are no longer than a tile and their order is free. A thread that stops within a row makes
   its core fetch what lies behind, which another core is about to write: the shorter the rows, the more
   that counts. */

struct work {
    const struct kind *kind;
    int64_t count, columns;
    int in_order; /* whether rows have to follow each other as they are given */
    void (*piece)(const void *job, int64_t first, int64_t last, int64_t column, int64_t n);
};

/* Where they may, threads begin at different rows: the pages of a new tensor, which hold several rows,
   are then not asked for by all of them at once, and cleared by each. */
static void by_columns(int64_t begin, int64_t end, void *job)
{
    const struct work *work = job;
    int64_t line = LINE / work->kind->in, tile = TILE / work->kind->in;
    int64_t last = end * line < work->columns ? end * line : work->columns;
    int64_t start = work->in_order ? 0 : work->count * (begin * line) / work->columns;
    for (int64_t c = begin * line; c < last; c += tile) {
        int64_t n = last - c < tile ? last - c : tile;
        work->piece(job, start, work->count, c, n);
        work->piece(job, 0, start, c, n);
    }
}

static void by_rows(int64_t begin, int64_t end, void *job)
{
    const struct work *work = job;
    work->piece(job, begin, end, 0, work->columns);
}

/* `job` begins with a struct work. */
static void divide(parallel_for run, void *job)
{
    const struct work *work = job;
    int64_t bytes = work->columns * work->kind->in, lines = (bytes + LINE - 1) / LINE;
    if (!work->in_order && bytes <= TILE)
        run(0, work->count, 1 + SHARE / (bytes + 1), by_rows, job);
    else
        run(0, lines, 1 + SHARE / (work->count * LINE + 1), by_columns, job);
}

/* Mixing. A step makes one row of the result. */

struct step {
    int32_t own, met;
    double keep;
};

struct mixing {
    struct work work;
    struct rows out, x, other;
    const struct step *steps;
    int64_t rings; /* the first step of those that form rings */
};

/* Fetch the beginning of a row before its turn comes. */
static inline void ahead(const char *row, int64_t bytes)
{
    if (bytes > AHEAD)
        bytes = AHEAD;
    for (int64_t at = 0; at < bytes; at += LINE)
        __builtin_prefetch(row + at);
}

static void mix_steps(const void *context, int64_t first, int64_t last, int64_t column, int64_t n)
{
    const struct mixing *job = context;
    char aside[TILE];
    int open = 0; /* whether we are within a ring, whose first row is aside */
    const struct kind *kind = job->work.kind;
    int64_t in = column * kind->in, out = column * kind->out;
    for (int64_t s = first; s < last; s++) {
        const struct step *step = job->steps + s;
        char *own = row_of(job->x, step->own) + in, *new = row_of(job->out, step->own) + out;
        char *met = step->met == FIRST ? aside : row_of(job->other, step->met) + in;
        if (s + 1 < last && step[1].met >= 0)
            ahead(row_of(job->other, step[1].met) + in, n * kind->in);
        if (s >= job->rings) {
            if (!open)
                memcpy(aside, own, (size_t)(n * kind->in));
            open = step->met != FIRST;
        }
        if (step->met != ALONE)
            kind->blend(met, own, step->keep, new, n);
        else if (kind->in != kind->out)
            kind->blend(own, own, 1, new, n);
        else if (new != own)
            memcpy(new, own, (size_t)(n * kind->in));
    }
}

static inline struct step step_of(const struct shares *shares, const int32_t *met, int64_t i)
{
    return (struct step){(int32_t)i, met[i], keep_of(shares, i)};
}

/* Every row once, each followed by its partner where that is still to come. */
static int64_t chains(struct step *steps, const struct shares *of, const int32_t *met, char *left)
{
    int64_t count = 0;
    for (int64_t i = 0; i < of->count; i++)
        left[i] = 1;
    for (int64_t start = 0; start < of->count; start++)
        for (int64_t i = start; i >= 0 && left[i]; i = met[i]) {
            left[i] = 0;
            steps[count++] = step_of(of, met, i);
        }
    return count;
}

/* The rows that change, in an order in which none is overwritten before it was read. `several` is
   whether a row has several readers: if none has, a row is read in the step before it is written, or
   in the last step of the ring that it opens. */
static int64_t in_place(struct step *steps, const struct shares *of, const int32_t *met, char *left,
                        int32_t *readers, int64_t *rings, int *several)
{
    int64_t count = 0, n = of->count;
    memset(readers, 0, (size_t)n * sizeof *readers);
    *several = 0;
    for (int64_t i = 0; i < n; i++) {
        left[i] = met[i] != ALONE;
        if (left[i])
            *several |= readers[met[i]]++ > 0;
    }
    for (int64_t start = 0; start < n; start++)
        for (int64_t i = start; left[i] && readers[i] == 0; readers[i]--) {
            left[i] = 0;
            steps[count++] = step_of(of, met, i);
            i = met[i];
        }
    *rings = count;
    for (int64_t start = 0; start < n; start++)
        for (int64_t i = start; left[i]; i = met[i]) {
            left[i] = 0;
            steps[count] = step_of(of, met, i);
            if (met[i] == start)
                steps[count].met = FIRST;
            count++;
        }
    return count;
}

/* In place, rows no longer than a tile can be divided over the threads, too, where none has several
   readers. Where two parts meet, rows are kept aside that one of them reads and the other overwrites. */

struct parts {
    const struct mixing *job;
    int64_t count; /* of the parts */
    char *kept;    /* for each part: the first row of the ring that it begins within; its own first row */
};

static inline int64_t first_step(const struct parts *parts, int64_t part)
{
    return parts->job->work.count * part / parts->count;
}

static inline char *kept_row(const struct parts *parts, int64_t part, int own)
{
    return parts->kept + (2 * part + own) * parts->job->work.columns * parts->job->work.kind->in;
}

static void keep_rows(const struct parts *parts)
{
    const struct mixing *job = parts->job;
    size_t bytes = (size_t)(job->work.columns * job->work.kind->in);
    int64_t s = job->rings, opened = job->rings;
    for (int64_t part = 1; part < parts->count; part++) {
        int64_t cut = first_step(parts, part);
        for (; s < cut; s++)
            if (job->steps[s].met == FIRST)
                opened = s + 1;
        if (opened < cut)
            memcpy(kept_row(parts, part, 0), row_of(job->x, job->steps[opened].own), bytes);
        memcpy(kept_row(parts, part, 1), row_of(job->x, job->steps[cut].own), bytes);
    }
}

static void mix_parts(int64_t begin, int64_t end, void *context)
{
    const struct parts *parts = context;
    const struct mixing *job = parts->job;
    const struct kind *kind = job->work.kind;
    int64_t n = job->work.columns;
    char aside[TILE];
    for (int64_t part = begin; part < end; part++) {
        int64_t first = first_step(parts, part), last = first_step(parts, part + 1);
        int open = first > job->rings && job->steps[first - 1].met != FIRST;
        const char *opened = open ? kept_row(parts, part, 0) : aside;
        for (int64_t s = first; s < last; s++) {
            const struct step *step = job->steps + s;
            char *own = row_of(job->x, step->own);
            const char *met = step->met == FIRST ? opened : row_of(job->x, step->met);
            if (s + 1 < last && step[1].met >= 0)
                ahead(row_of(job->x, step[1].met), n * kind->in);
            else if (s + 1 == last && last < job->work.count && step->met == step[1].own)
                met = kept_row(parts, part + 1, 1);
            if (s >= job->rings) {
                if (!open) {
                    memcpy(aside, own, (size_t)(n * kind->in));
                    opened = aside;
                }
                open = step->met != FIRST;
            }
            kind->blend(met, own, step->keep, own, n);
        }
    }
}

static int divide_in_place(parallel_for run, const struct mixing *job, int64_t threads)
{
    int64_t bytes = job->work.columns * job->work.kind->in;
    int64_t most = job->work.count * bytes / SHARE_IN_PLACE;
    struct parts parts = {job, threads < most ? threads : most, NULL};
    if (parts.count < 1)
        parts.count = 1;
    parts.kept = memory(2 * parts.count * bytes, 1);
    if (parts.kept == NULL)
        return NO_MEMORY;
    keep_rows(&parts);
    run(0, parts.count, 1, mix_parts, &parts);
    free(parts.kept);
    return FINE;
}

/* Of which text this is the compilation. */
uint32_t vicinal_source(void) { return SOURCE; }

int vicinal_mix(parallel_for run, int kind, void *out, int64_t out_stride, void *x,
                int64_t x_stride, void *other, int64_t other_stride, int64_t other_rows,
                const int64_t *partner, const void *lam, int64_t n, int64_t columns,
                int64_t threads)
{
    struct mixing job = {.work = {KINDS + kind, 0, columns, 1, mix_steps},
                         .out = {out, out_stride * KINDS[kind].out},
                         .x = {x, x_stride * KINDS[kind].in},
                         .other = {other, other_stride * KINDS[kind].in}};
    struct shares shares = {partner, lam, n, kind == DOUBLE,
                            /* a part of a batch begins where the batch does, and is not it */
                            other == x && other_rows == n && other_stride == x_stride};
    struct step *steps = memory(n, sizeof *steps + 2 * sizeof(int32_t) + sizeof(char));
    if (steps == NULL)
        return NO_MEMORY;
    int32_t *met = (int32_t *)(steps + n), *readers = met + n;
    char *left = (char *)(readers + n);
    int status = read_partners(met, &shares, other_rows) ? FINE : NO_SUCH_ROW, several = 1;
    job.steps = steps;
    job.work.in_order = shares.itself && out == x;
    if (status == FINE && !shares.itself) {
        for (int64_t i = 0; i < n; i++)
            steps[i] = step_of(&shares, met, i);
        job.work.count = job.rings = n;
    } else if (status == FINE && out != x) {
        job.work.count = job.rings = chains(steps, &shares, met, left);
    } else if (status == FINE) {
        job.work.count = in_place(steps, &shares, met, left, readers, &job.rings, &several);
    }
    if (!several && columns * KINDS[kind].in <= TILE && job.work.count > 0)
        status = divide_in_place(run, &job, threads);
    else if (job.work.count > 0)
        divide(run, &job);
    free(steps);
    return status;
}

/* The transposed map: each row gets its own share, and what those give that had it as a partner. */

struct gathering {
    struct work work;
    struct rows out, g;
    const int64_t *order;   /* the rows, each followed by one that had it as a partner */
    const int64_t *begin;   /* where the sum of each row begins in the two lists below */
    const int64_t *offsets; /* of the rows to be summed, its own first */
    const double *shares;
};

static void gather_rows(const void *context, int64_t first, int64_t last, int64_t column, int64_t n)
{
    const struct gathering *job = context;
    const struct kind *kind = job->work.kind;
    int64_t bytes = column * kind->in;
    const char *rows = job->g.start + bytes;
    for (int64_t s = first; s < last; s++) {
        int64_t r = job->order[s], at = job->begin[r], count = job->begin[r + 1] - at;
        const int64_t *offsets = job->offsets + at;
        const double *shares = job->shares + at;
        char *new = row_of(job->out, r) + bytes;
        if (count == 1 && shares[0] == 1)
            memcpy(new, rows + offsets[0], (size_t)(n * kind->in));
        else if (count == 2 && shares[1] == 1 - shares[0]) /* one share for both: a blend */
            kind->blend(rows + offsets[1], rows + offsets[0], shares[0], new, n);
        else
            kind->sum(rows, offsets, shares, count, new, n);
    }
}

int vicinal_transposed(parallel_for run, int kind, void *out, int64_t out_stride, void *g,
                       int64_t g_stride, const int64_t *partner, const void *lam, int64_t n,
                       int64_t columns)
{
    struct rows from = {g, g_stride * KINDS[kind].in};
    struct shares of = {partner, lam, n, kind == DOUBLE, 1};
    double *shares = memory(n, 2 * sizeof *shares + 6 * sizeof(int64_t) + sizeof(int32_t));
    if (shares == NULL)
        return NO_MEMORY;
    int64_t *offsets = (int64_t *)(shares + 2 * n), *order = offsets + 2 * n, *next = order + n;
    int64_t *reader = next + n, *begin = reader + n, count = 0;
    int32_t *met = (int32_t *)(begin + n + 1);
    if (!read_partners(met, &of, n)) {
        free(shares);
        return NO_SUCH_ROW;
    }
    for (int64_t i = 0; i < n; i++) {
        next[i] = 1;
        reader[i] = -1;
    }
    for (int64_t i = 0; i < n; i++)
        if (met[i] != ALONE)
            next[met[i]]++;
    begin[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        begin[i + 1] = begin[i] + next[i];
        next[i] = begin[i] + 1;
        offsets[begin[i]] = i * from.stride;
        shares[begin[i]] = met[i] == ALONE ? 1 : keep_of(&of, i);
    }
    for (int64_t i = 0; i < n; i++)
        if (met[i] != ALONE) {
            int64_t at = next[met[i]]++;
            shares[at] = 1 - keep_of(&of, i);
            offsets[at] = i * from.stride;
            if (reader[met[i]] < 0)
                reader[met[i]] = i;
        }
    for (int64_t start = 0; start < n; start++)
        for (int64_t i = start; i >= 0 && next[i] >= 0; i = reader[i]) {
            next[i] = -1; /* is in order */
            order[count++] = i;
        }
    struct gathering job = {{KINDS + kind, n, columns, 0, gather_rows},
                            {out, out_stride * KINDS[kind].out},
                            from,
                            order,
                            begin,
                            offsets,
                            shares};
    divide(run, &job);
    free(shares);
    return FINE;
}

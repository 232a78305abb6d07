/* Blends the rows of a batch in about one read and one write of it, and applies the transposed map.

   Every row is followed by its partner, which is then still in cache. In place, a row is overwritten
   after its last reader. Where every row still has a reader, as in a permutation, the rows form cycles;
   the first row of a cycle is copied aside. Each thread takes some columns of all rows. Threads would
   share cache lines too often where rows are short, so there each takes some of the rows instead.

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

static inline float same(float value) { return value; }
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

#define BLEND(NAME, TYPE, LOAD, STORE)                                                             \
    static void blend_##NAME(const void *partner_, const void *own_, double keep, void *out_,      \
                             int64_t n)                                                            \
    {                                                                                              \
        const TYPE *partner = partner_, *own = own_;                                               \
        TYPE *out = out_;                                                                          \
        float share = (float)keep, rest = (float)(keep - 1);                                       \
        if (share < 0.5f) {                                                                        \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                float a = LOAD(partner[c]), b = LOAD(own[c]);                                      \
                out[c] = STORE(fmaf(-share, a - b, a));                                            \
            }                                                                                      \
        } else {                                                                                   \
            _Pragma("GCC ivdep") for (int64_t c = 0; c < n; c++)                                   \
            {                                                                                      \
                float a = LOAD(partner[c]), b = LOAD(own[c]);                                      \
                out[c] = STORE(fmaf(rest, b - a, b));                                              \
            }                                                                                      \
        }                                                                                          \
    }

#define SUM(NAME, TYPE, LOAD, STORE)                                                               \
    static void sum_##NAME(const char *rows, const int64_t *offsets, const double *shares,         \
                           int64_t count, void *out_, int64_t n)                                   \
    {                                                                                              \
        TYPE *out = out_;                                                                          \
        for (int64_t start = 0; start < n; start += BLOCK) {                                       \
            int64_t width = n - start < BLOCK ? n - start : BLOCK;                                 \
            float total[BLOCK] = {0};                                                              \
            for (int64_t r = 0; r < count; r++) {                                                  \
                const TYPE *row = (const TYPE *)(rows + offsets[r]) + start;                       \
                float share = (float)shares[r];                                                    \
                for (int64_t c = 0; c < width; c++)                                                \
                    total[c] = fmaf(share, LOAD(row[c]), total[c]);                                \
            }                                                                                      \
            for (int64_t c = 0; c < width; c++)                                                    \
                out[start + c] = STORE(total[c]);                                                  \
        }                                                                                          \
    }

BLEND(float, float, same, same)
BLEND(bfloat16, uint16_t, from_bfloat16, to_bfloat16)
BLEND(byte, uint8_t, from_byte, to_byte)
SUM(float, float, same, same)
SUM(bfloat16, uint16_t, from_bfloat16, to_bfloat16)

static const struct kind {
    blend_rows blend;
    sum_rows sum;
    int64_t bytes; /* of a value */
} KINDS[] = {{blend_float, sum_float, 4}, {blend_bfloat16, sum_bfloat16, 2}, {blend_byte, NULL, 1}};

/* A step writes one row: a blend of two rows, or in the transposed map, a sum of several. */

enum { ALONE = -1 }; /* a row without a partner */
enum { COPY, BLEND_ROW, BLEND_ASIDE }; /* no partner; a partner; the row that was copied aside */

struct step {
    char *out, *own, *partner;
    double keep;
    int8_t how, opens; /* `opens`: the first step of a cycle, whose row is copied aside */
};

struct job {
    const struct kind *kind;
    int64_t count, columns, per; /* steps; values in a row; steps for each thread */
    struct step *steps;
    const char *rows; /* of the transposed map, with where the terms of each row begin */
    const int64_t *begin, *offsets;
    const double *shares;
    void (*run)(const struct job *job, int64_t first, int64_t last, int64_t column, int64_t n);
};

static void run_columns(int64_t begin, int64_t end, void *context)
{
    const struct job *job = context;
    int64_t line = LINE / job->kind->bytes, tile = TILE / job->kind->bytes;
    int64_t last = end * line < job->columns ? end * line : job->columns;
    for (int64_t column = begin * line; column < last; column += tile)
        job->run(job, 0, job->count, column, last - column < tile ? last - column : tile);
}

static void run_steps(int64_t begin, int64_t end, void *context)
{
    const struct job *job = context;
    int64_t last = end * job->per < job->count ? end * job->per : job->count;
    for (int64_t first = begin * job->per; first < last; first += job->per)
        job->run(job, first, first + job->per < last ? first + job->per : last, 0, job->columns);
}

static void run_job(parallel_for run, struct job *job)
{
    int64_t lines = (job->columns * job->kind->bytes + LINE - 1) / LINE;
    if (job->per > 0)
        run(0, (job->count + job->per - 1) / job->per, 1, run_steps, job);
    else
        run(0, lines, 1 + GRAIN / (job->count * LINE + 1), run_columns, job);
}

/* The steps for each thread, if there are enough short rows to divide; otherwise 0. */
static int64_t steps_for_each(const struct job *job, int64_t threads)
{
    int64_t bytes = job->columns * job->kind->bytes, most = job->count * bytes / GRAIN;
    int64_t parts = threads < most ? threads : most;
    return bytes > TILE || parts < 2 ? 0 : (job->count + parts - 1) / parts;
}

static void mix_rows(const struct job *job, int64_t first, int64_t last, int64_t column, int64_t n)
{
    const struct kind *kind = job->kind;
    int64_t at = column * kind->bytes;
    char aside[TILE];
    for (const struct step *step = job->steps + first; step < job->steps + last; step++) {
        char *own = step->own + at, *new = step->out + at;
        if (step->opens)
            memcpy(aside, own, (size_t)(n * kind->bytes));
        if (step->how != COPY)
            kind->blend(step->how == BLEND_ASIDE ? aside : step->partner + at, own, step->keep, new, n);
        else if (new != own)
            memcpy(new, own, (size_t)(n * kind->bytes));
    }
}

/* Read the partners and shares, once: another thread may change them meanwhile. */
static int read_partners(int64_t *partner, double *keep, const int64_t *partners, const double *lam,
                         int64_t count, int64_t rows, int itself)
{
    for (int64_t i = 0; i < count; i++) {
        keep[i] = lam[i];
        partner[i] = partners[i];
        if (partner[i] < 0 || partner[i] >= rows)
            return NO_SUCH_ROW;
        if (keep[i] == 1 || (itself && partner[i] == i))
            partner[i] = ALONE;
    }
    return DONE;
}

/* List the rows in an order in which none is written before it was read: first those outside of cycles.
   Set the number of these. Return whether a row has several readers. */
static int sort_rows(int64_t *order, int64_t *cycles, const int64_t *partner, int64_t count,
                     int64_t *readers)
{
    int64_t done = 0, left = -1; /* readers of a row that is in order */
    int several = 0;
    memset(readers, 0, (size_t)count * sizeof *readers);
    for (int64_t i = 0; i < count; i++)
        if (partner[i] != ALONE)
            several |= readers[partner[i]]++ > 0;
    for (int64_t start = 0; start < count; start++)
        for (int64_t i = start; i != ALONE && readers[i] == 0; i = partner[i]) {
            readers[i] = left;
            order[done++] = i;
            if (partner[i] != ALONE)
                readers[partner[i]]--;
        }
    *cycles = done;
    for (int64_t start = 0; start < count; start++)
        for (int64_t i = start; readers[i] != left; i = partner[i]) {
            readers[i] = left;
            order[done++] = i;
        }
    return several;
}

/* Copy the first row of each cycle aside, and, if threads divide the steps, the rows that one thread
   reads and another one overwrites: to `saved`. */
static void close_cycles(const struct job *job, int64_t cycles, char *saved)
{
    struct step *steps = job->steps;
    size_t bytes = (size_t)(job->columns * job->kind->bytes);
    for (int64_t first = cycles, s = cycles; s < job->count; s++) {
        if (steps[s].partner != steps[first].own)
            continue;
        if (job->per > 0 && first / job->per != s / job->per) {
            steps[s].partner = memcpy(saved, steps[first].own, bytes);
            saved += bytes;
        } else {
            steps[first].opens = 1;
            steps[s].how = BLEND_ASIDE;
        }
        first = s + 1;
    }
    for (int64_t cut = job->per; job->per > 0 && cut < job->count; cut += job->per)
        if (steps[cut - 1].how == BLEND_ROW && steps[cut - 1].partner == steps[cut].own) {
            steps[cut - 1].partner = memcpy(saved, steps[cut].own, bytes);
            saved += bytes;
        }
}

int vicinal_mix(parallel_for run, int64_t threads, int kind, int64_t count, int64_t columns,
                const int64_t *partners, const double *lam, char *out, int64_t out_stride, char *x,
                int64_t x_stride, char *other, int64_t other_stride, int64_t other_rows)
{
    /* The first rows of a larger batch begin at the same address as the batch. */
    int itself = other == x && other_rows == count && other_stride == x_stride, several = 0;
    struct job job = {.kind = KINDS + kind, .count = count, .columns = columns, .run = mix_rows};
    int64_t bytes = job.kind->bytes, cycles = count;
    job.per = steps_for_each(&job, threads);
    size_t lists = (size_t)count * (sizeof *job.steps + 4 * sizeof(int64_t));
    size_t copies = job.per > 0 ? (size_t)(2 * threads * columns * bytes) : 0;
    char *memory = malloc(lists + copies);
    if (memory == NULL)
        return NO_MEMORY;
    job.steps = (struct step *)memory;
    int64_t *order = (int64_t *)(job.steps + count), *partner = order + count;
    double *keep = (double *)(partner + count);
    int status = read_partners(partner, keep, partners, lam, count, other_rows, itself);
    if (status == DONE) {
        if (itself)
            several = sort_rows(order, &cycles, partner, count, (int64_t *)(keep + count));
        for (int64_t s = 0; s < count; s++) {
            int64_t i = itself ? order[s] : s;
            job.steps[s] = (struct step){.out = out + i * out_stride * bytes,
                                         .own = x + i * x_stride * bytes,
                                         .partner = other + partner[i] * other_stride * bytes,
                                         .keep = keep[i],
                                         .how = partner[i] == ALONE ? COPY : BLEND_ROW};
        }
        if (out == x && several)
            job.per = 0;
        if (out == x && itself)
            close_cycles(&job, cycles, memory + lists);
        run_job(run, &job);
    }
    free(memory);
    return status;
}

static void sum_rows_of(const struct job *job, int64_t first, int64_t last, int64_t column, int64_t n)
{
    const struct kind *kind = job->kind;
    for (int64_t i = first; i < last; i++) {
        int64_t at = job->begin[i], terms = job->begin[i + 1] - at;
        kind->sum(job->rows + column * kind->bytes, job->offsets + at, job->shares + at, terms,
                  job->steps[i].out + column * kind->bytes, n);
    }
}

/* The transposed map: each row gets its own share, and what its readers give to it. */
int vicinal_transposed(parallel_for run, int64_t threads, int kind, int64_t count, int64_t columns,
                       const int64_t *partners, const double *lam, char *out, int64_t out_stride,
                       char *g, int64_t g_stride)
{
    struct job job = {
        .kind = KINDS + kind, .count = count, .columns = columns, .rows = g, .run = sum_rows_of};
    job.per = steps_for_each(&job, threads);
    job.steps = malloc((size_t)(count + 1) * (sizeof *job.steps + 8 * sizeof(int64_t)));
    if (job.steps == NULL)
        return NO_MEMORY;
    int64_t *begin = (int64_t *)(job.steps + count), *next = begin + count + 1;
    int64_t *offsets = next + count, *partner = offsets + 2 * count;
    double *keep = (double *)(partner + count), *shares = keep + count;
    int status = read_partners(partner, keep, partners, lam, count, count, 1);
    if (status == DONE) {
        memset(next, 0, (size_t)count * sizeof *next);
        for (int64_t i = 0; i < count; i++)
            if (partner[i] != ALONE)
                next[partner[i]]++;
        begin[0] = 0;
        for (int64_t i = 0; i < count; i++) {
            begin[i + 1] = begin[i] + 1 + next[i];
            next[i] = begin[i] + 1;
            offsets[begin[i]] = i * g_stride * job.kind->bytes;
            shares[begin[i]] = partner[i] == ALONE ? 1 : keep[i];
            job.steps[i].out = out + i * out_stride * job.kind->bytes;
        }
        for (int64_t i = 0; i < count; i++)
            if (partner[i] != ALONE) {
                offsets[next[partner[i]]] = i * g_stride * job.kind->bytes;
                shares[next[partner[i]]++] = 1 - keep[i];
            }
        job.begin = begin, job.offsets = offsets, job.shares = shares;
        run_job(run, &job);
    }
    free(job.steps);
    return status;
}

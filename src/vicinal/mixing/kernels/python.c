/* CPU: the loops as functions of Python. Through ctypes a call takes 1.3 µs more, and 8 more after a
   batch has driven its code out of the cache.

   Declared by hand, so that no headers need to be installed: all of it belongs to Python's stable ABI,
   or to DLPack's exchange of tensors between libraries (github.com/dmlc/dlpack, version 1). */

#include <string.h>

#include "native.h"

typedef struct _object PyObject;
typedef struct _ts PyThreadState;

typedef PyObject *(*function)(PyObject *self, PyObject *const *given, intptr_t count);

typedef struct {
    const char *name;
    function called;
    int convention;
    const char *help;
} PyMethodDef;

#define METH_FASTCALL 0x80

extern PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *, PyObject *);
extern int PyErr_BadArgument(void);
extern PyObject *PyErr_Occurred(void);
extern void PyErr_Clear(void);
extern void *PyCapsule_GetPointer(PyObject *, const char *name);
extern double PyFloat_AsDouble(PyObject *);
extern long long PyLong_AsLongLong(PyObject *);
extern void *PyLong_AsVoidPtr(PyObject *);
extern PyObject *PyLong_FromLong(long);
extern PyThreadState *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(PyThreadState *);

/* What is known of a tensor. Strides count in numbers of its type. */
struct tensor {
    void *data;
    int32_t device, index;
    int32_t dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t offset; /* in bytes */
};

enum { DL_CPU = 1, DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4 };

typedef int (*tensor_of)(void *object, struct tensor *tensor);

struct exchange {
    uint32_t major, minor;
    void *older, *allocate, *lend, *take;
    tensor_of tensor_of;
};

/* Return PyTorch's function that says what is known of a tensor, from Tensor.__dlpack_c_exchange_api__. */
void *vicinal_tensor_of(PyObject *capsule)
{
    const struct exchange *exchange = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    if (exchange == NULL)
        PyErr_Clear();
    return exchange != NULL && exchange->major == 1 ? (void *)exchange->tensor_of : NULL;
}

union number {
    void *address;
    int64_t whole;
    double real;
};

#define MOST 14 /* numbers that a function takes */

/* Read what was given, as `kinds` has a letter for each: address, whole, real. */
static int read_numbers(union number *numbers, const char *kinds, PyObject *const *given,
                        intptr_t count)
{
    if (count != (intptr_t)strlen(kinds))
        return PyErr_BadArgument();
    for (intptr_t i = 0; i < count; i++) {
        if (kinds[i] == 'a')
            numbers[i].address = PyLong_AsVoidPtr(given[i]);
        else if (kinds[i] == 'w')
            numbers[i].whole = PyLong_AsLongLong(given[i]);
        else
            numbers[i].real = PyFloat_AsDouble(given[i]);
        if (PyErr_Occurred() != NULL)
            return 0;
    }
    return 1;
}

/* A function that answers with a status. Others of Python's threads go on meanwhile. */
#define FUNCTION(NAME, KINDS, CALL)                                                                \
    static PyObject *NAME(PyObject *self, PyObject *const *given, intptr_t count)                  \
    {                                                                                              \
        (void)self;                                                                                \
        union number n[MOST];                                                                      \
        if (!read_numbers(n, KINDS, given, count))                                                 \
            return NULL;                                                                           \
        PyThreadState *python = PyEval_SaveThread();                                               \
        int status = CALL;                                                                         \
        PyEval_RestoreThread(python);                                                              \
        return PyLong_FromLong(status);                                                            \
    }

#define RUN ((parallel_for)n[0].address)
#define KIND ((int)n[1].whole)

FUNCTION(mix, "awawawawwaawww",
         vicinal_mix(RUN, KIND, n[2].address, n[3].whole, n[4].address, n[5].whole, n[6].address,
                     n[7].whole, n[8].whole, n[9].address, n[10].address, n[11].whole, n[12].whole,
                     n[13].whole))
FUNCTION(transposed, "awawawaaww",
         vicinal_transposed(RUN, KIND, n[2].address, n[3].whole, n[4].address, n[5].whole,
                            n[6].address, n[7].address, n[8].whole, n[9].whole))
FUNCTION(likelihood, "awaaawwwraaa",
         vicinal_likelihood(RUN, KIND, n[2].address, n[3].address, n[4].address, n[5].whole,
                            n[6].whole, n[7].whole, n[8].real, n[9].address, n[10].address,
                            n[11].address))
FUNCTION(slope, "awaaawwwawaa",
         vicinal_likelihood_slope(RUN, KIND, n[2].address, n[3].address, n[4].address, n[5].whole,
                                  n[6].whole, n[7].whole, n[8].address, (int)n[9].whole,
                                  n[10].address, n[11].address))
FUNCTION(beta, "aarrwwa",
         vicinal_beta(n[0].address, n[1].address, n[2].real, n[3].real, n[4].whole,
                      (int)n[5].whole, n[6].address))

/* Whether these are numbers of that type in the memory of the CPU, without gaps. */
static int plain(const struct tensor *one, int code, int bits)
{
    if (one->device != DL_CPU || one->code != code || one->bits != bits || one->lanes != 1)
        return 0;
    int64_t dense = 1;
    for (int32_t d = one->dimensions - 1; d >= 0; d--) {
        if (one->shape[d] != 1 && one->strides[d] != dense)
            return 0;
        dense *= one->shape[d];
    }
    return one->data != NULL && dense > 0;
}

/* Return of which kind it is as what goes in and comes out, -1 if of none. */
static int kind_of(const struct tensor *one)
{
    if (plain(one, DL_FLOAT, 32))
        return FLOAT;
    if (plain(one, DL_FLOAT, 64))
        return DOUBLE;
    if (plain(one, DL_BFLOAT, 16))
        return BFLOAT16;
    return plain(one, DL_UINT, 8) ? BYTE : -1;
}

static void *start(const struct tensor *one) { return (char *)one->data + one->offset; }

/* Whether two tensors, both plain, have the same shape. */
static int alike(const struct tensor *one, const struct tensor *two)
{
    size_t bytes = (size_t)one->dimensions * sizeof *one->shape;
    return one->dimensions == two->dimensions && memcmp(one->shape, two->shape, bytes) == 0;
}

/* Mix a tensor with itself into another or in place, by partners and shares in two more, if all are as
   plain as they mostly are: for a small batch, what costs is to ask PyTorch for one fact after another. */
static PyObject *at_once(PyObject *self, PyObject *const *given, intptr_t count)
{
    (void)self;
    union number n[3]; /* how to run, how to look at a tensor, threads */
    if (count != 7)
        return PyErr_BadArgument(), NULL;
    if (!read_numbers(n, "aaw", given, 3))
        return NULL;
    tensor_of look = (tensor_of)n[1].address;
    struct tensor out, x, partner, lam;
    if (look == NULL || look(given[3], &out) || look(given[4], &x) || look(given[5], &partner) ||
        look(given[6], &lam)) {
        PyErr_Clear();
        return PyLong_FromLong(NOT_PLAIN);
    }
    int kind = kind_of(&x), bits = kind == DOUBLE ? 64 : 32;
    int fits = kind >= 0 && kind_of(&out) == kind && alike(&out, &x) && x.dimensions >= 1;
    fits = fits && plain(&partner, DL_INT, 64) && plain(&lam, DL_FLOAT, bits);
    fits = fits && partner.dimensions == 1 && lam.dimensions == 1;
    int64_t rows = fits ? x.shape[0] : 0, columns = 1;
    if (!fits || partner.shape[0] != rows || lam.shape[0] != rows || rows > INT32_MAX)
        return PyLong_FromLong(NOT_PLAIN);
    for (int32_t d = 1; d < x.dimensions; d++)
        columns *= x.shape[d];
    PyThreadState *python = PyEval_SaveThread();
    int status = vicinal_mix(RUN, kind, start(&out), columns, start(&x), columns, start(&x), columns,
                             rows, start(&partner), start(&lam), rows, columns, n[2].whole);
    PyEval_RestoreThread(python);
    return PyLong_FromLong(status);
}

static PyMethodDef FUNCTIONS[] = {
    {"mix", mix, METH_FASTCALL, NULL},
    {"at_once", at_once, METH_FASTCALL, NULL},
    {"transposed", transposed, METH_FASTCALL, NULL},
    {"likelihood", likelihood, METH_FASTCALL, NULL},
    {"slope", slope, METH_FASTCALL, NULL},
    {"beta", beta, METH_FASTCALL, NULL},
};

/* Return the function of that name. */
PyObject *vicinal_function(const char *name)
{
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++)
        if (strcmp(FUNCTIONS[i].name, name) == 0)
            return PyCFunction_NewEx(FUNCTIONS + i, NULL, NULL);
    PyErr_BadArgument();
    return NULL;
}

/* CPU: the loops as functions of Python. Through ctypes a call takes 1.3 µs more, and 8 more after a
   batch has driven its code out of the cache.

   Declared by hand, so that Python's headers need not be installed: all of it belongs to Python's
   stable ABI. */

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
extern double PyFloat_AsDouble(PyObject *);
extern long long PyLong_AsLongLong(PyObject *);
extern void *PyLong_AsVoidPtr(PyObject *);
extern PyObject *PyLong_FromLong(long);
extern PyThreadState *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(PyThreadState *);

union number {
    void *address;
    int64_t whole;
    double real;
};

#define MOST 15 /* numbers that a function takes */

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
FUNCTION(in_place, "awaaawww",
         vicinal_mix_in_place(RUN, KIND, n[2].address, n[3].address, n[4].address, n[5].whole,
                              n[6].whole, n[7].whole))
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

static PyMethodDef FUNCTIONS[] = {
    {"mix", mix, METH_FASTCALL, NULL},
    {"in_place", in_place, METH_FASTCALL, NULL},
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

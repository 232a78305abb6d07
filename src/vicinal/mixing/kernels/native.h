/* What the C files share: how PyTorch's threads are called, and what is answered. */

#ifndef VICINAL_NATIVE_H
#define VICINAL_NATIVE_H

#include <stdint.h>
#include <stdlib.h>

#define SHARE (64 * 1024) /* bytes from which on work is worth another thread */

enum { FINE, NO_MEMORY, NO_SUCH_ROW, OUT_OF_RANGE };

typedef int32_t (*parallel_for)(int64_t begin, int64_t end, int64_t grain,
                                void (*body)(int64_t, int64_t, void *), void *context);

static inline void *memory(int64_t count, size_t size)
{
    return malloc((size_t)(count + 1) * size);
}

#endif

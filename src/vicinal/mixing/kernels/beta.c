/* CPU: Beta variables from Gamma and uniform ones. See `vicinal.mixing.sampling`. */

#include <math.h>

#include "native.h"

/* first / (first + second) of two rows of `count` numbers each, which are Gamma(a + 1) * U ** (1 / a):
   by the logarithms of the powers, since for a small a they are too small for a number. `one_by` is
   1 / a of each row, `wide` whether the result is in double precision. */
int vicinal_beta(const double *gamma, const double *uniform, double one_by_first,
                 double one_by_second, int64_t count, int wide, void *out)
{
    const double *gamma_second = gamma + count, *uniform_second = uniform + count;
    for (int64_t i = 0; i < count; i++) {
        double ratio;
        if (one_by_first == 1 && one_by_second == 1) /* uniform shares, asked for most: no powers */
            ratio = gamma_second[i] * uniform_second[i] / (gamma[i] * uniform[i]);
        else if (one_by_first == one_by_second)
            ratio = gamma_second[i] / gamma[i] *
                    exp(one_by_first * log(uniform_second[i] / uniform[i]));
        else
            ratio = gamma_second[i] / gamma[i] *
                    exp(one_by_second * log(uniform_second[i]) - one_by_first * log(uniform[i]));
        double share = 1 / (1 + ratio);
        if (wide)
            ((double *)out)[i] = share;
        else
            ((float *)out)[i] = (float)share;
    }
    return FINE;
}

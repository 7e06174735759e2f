/* Two problems of three coupled bits, solved and summed; then a problem that is refused.
 *
 *     cargo build --release -p gumbel-c
 *     cc -I crates/gumbel-c/include crates/gumbel-c/examples/solve.c -o solve target/release/libgumbel_c.a -lm -lpthread -ldl
 */

#include <gumbel.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void check(int32_t code) {
    if (code != GUMBEL_OK) {
        fprintf(stderr, "%s\n", gumbel_last_error());
        exit(1);
    }
}

int main(void) {
    gumbel_structure *model;
    check(gumbel_pairwise(3, &model));

    /* Potentials of 0 and 1 for every bit, then the weights of the pairs (0, 1), (0, 2), (1, 2). */
    float theta[2][9] = {
        {0, 1, 0, -2, 0, 0.5f, 3, 0, -1},
        {0, 1, 0, -2, 0, 0.5f, -INFINITY, 0, 4}, /* bits 0 and 1 are never both 1 */
    };
    uint32_t z[2][3];
    double values[2], sums[2];
    uint8_t proved[2];
    check(gumbel_solve(model, theta[0], 2, gumbel_potentials(model), 0.0, 1, z[0], values, proved));
    check(gumbel_log_partition(model, theta[0], 2, gumbel_potentials(model), 1, sums));
    for (int b = 0; b < 2; b++) {
        printf("z = %u %u %u, value %.1f, %s, ln Z = %.4f\n", (unsigned)z[b][0], (unsigned)z[b][1], (unsigned)z[b][2],
               values[b], proved[b] ? "proved" : "not proved", sums[b]);
    }

    theta[1][4] = NAN;
    if (gumbel_solve(model, theta[0], 2, gumbel_potentials(model), 0.0, 1, z[0], NULL, NULL) == GUMBEL_REFUSED) {
        printf("refused: %s\n", gumbel_last_error());
    }
    gumbel_close(model);
    return 0;
}

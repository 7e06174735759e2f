/* Exact arg max over discrete structures, their log-partitions and marginals: the solvers of gumbel for C, and for
 * whatever calls C.
 *
 *     gumbel_structure *model;
 *     if (gumbel_pairwise(15, &model) != GUMBEL_OK) {
 *         fprintf(stderr, "%s\n", gumbel_last_error());
 *     }
 *     gumbel_solve(model, theta, 100, gumbel_potentials(model), 0.0, 1, z, values, NULL);
 *     gumbel_close(model);
 *
 * Every structure has P potentials and n variables; a batch of B problems is theta[B][P], row-major, and its answers are
 * z[B][n]. -INFINITY forbids a choice. The first potentials are those of single variables. What they mean:
 *
 *     categorical   n variables with K values      theta[i * K + k]: variable i has the value k
 *     pairwise      n bits                         theta[2 * i + k]: bit i is k; then the weights of z_i z_j, of the pairs
 *                                                  (0, 1), (0, 2), ..., (1, 2), ...
 *     supermodular  the same, weights >= 0
 *     chain         T variables with K values      theta[t * K + k]; then [T - 1][K][K]: from the value of t to that of t + 1
 *     tree          n variables with K values      theta[i * K + k]; then [edges][K][K]: values of the first and second end
 *     subset        k of n                         theta[i]: z_i = 1
 *     permutation   n                              theta[i * n + j]: row i has the column z_i = j
 *     spanning tree of a graph                     theta[e]: edge e is in the tree, z_e = 1. Of the complete graph the
 *                                                  edges are (0, 1), (0, 2), ..., (1, 2), ...
 *     arborescence  from a root                    theta[i * n + j]: the parent of j is i, z_j = i; z_root = root
 *
 * Functions that may fail return GUMBEL_OK or another code, and leave a message of one line for the thread that called
 * them. Arrays that they write to may then hold a part of the answers. A structure may be used by several threads at
 * once, and be closed when none of them uses it any more. `threads` is the number of threads that share a batch, 0 for
 * one on each core; answers do not depend on it. */

#ifndef GUMBEL_H
#define GUMBEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All is well. */
#define GUMBEL_OK 0
/* A null pointer, or a size that is not that of the structure: an error of the program that calls. */
#define GUMBEL_USAGE 1
/* The library refuses it: a size out of range, a potential that is NaN, no assignment that is allowed, sums that are not
 * tractable. */
#define GUMBEL_REFUSED 2
/* An error of this library; the structure should not be used any more. */
#define GUMBEL_INTERNAL 3

/* A structure, and working memory of its solvers. */
typedef struct gumbel_structure gumbel_structure;

/* The version, such as "0.1.0". */
const char *gumbel_version(void);

/* What went wrong in the last call of this thread that failed; "" if none has. It stays until the next failure. */
const char *gumbel_last_error(void);

/* Constructors: they write a new structure, to be closed. */
int32_t gumbel_categorical(size_t variables, size_t values, gumbel_structure **out);
int32_t gumbel_pairwise(size_t variables, gumbel_structure **out);
int32_t gumbel_supermodular(size_t variables, gumbel_structure **out);
int32_t gumbel_chain(size_t variables, size_t values, gumbel_structure **out);
/* `ends` are the two variables of every edge, [edges][2]; a forest is fine. */
int32_t gumbel_tree(size_t variables, size_t values, const uint32_t *ends, size_t edges, gumbel_structure **out);
int32_t gumbel_subset(size_t elements, size_t chosen, gumbel_structure **out);
int32_t gumbel_permutation(size_t size, gumbel_structure **out);
/* `ends` are the two nodes of every edge, [edges][2]; NULL and 0 edges: the complete graph. */
int32_t gumbel_spanning_tree(size_t nodes, const uint32_t *ends, size_t edges, gumbel_structure **out);
int32_t gumbel_arborescence(size_t nodes, size_t root, gumbel_structure **out);

/* Frees a structure; NULL is fine. */
void gumbel_close(gumbel_structure *structure);

/* P; 0 for NULL. */
size_t gumbel_potentials(const gumbel_structure *structure);
/* n; 0 for NULL. */
size_t gumbel_variables(const gumbel_structure *structure);

/* Solves theta[batch][potentials]: the best assignments z[batch][n], their scores values[batch], and whether no other is
 * better, proved[batch] (1 or 0). values and proved may be NULL. `limit` is the number of seconds for a problem after which
 * the search of a pairwise model ends without a proof; 0: none. */
int32_t gumbel_solve(const gumbel_structure *structure, const float *theta, size_t batch, size_t potentials, double limit,
                     size_t threads, uint32_t *z, double *values, uint8_t *proved);

/* Log-partitions in nats, out[batch], of theta[batch][potentials]. */
int32_t gumbel_log_partition(const gumbel_structure *structure, const float *theta, size_t batch, size_t potentials,
                             size_t threads, double *out);

/* Marginals[batch][potentials] and, unless it is NULL, log_partition[batch] of theta[batch][potentials]. */
int32_t gumbel_marginals(const gumbel_structure *structure, const float *theta, size_t batch, size_t potentials,
                         size_t threads, float *marginals, double *log_partition);

#ifdef __cplusplus
}
#endif

#endif

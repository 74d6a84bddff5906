/* Eight schools, non-centred, with the functions that BridgeStan puts into a compiled Stan model: the C interface of
   BridgeStan 2 (https://roualdes.us/bridgestan), written by hand for tests where no Stan toolchain is at hand.

   parameters { real mu; real<lower=0> tau; vector[8] theta_tilde; }
   transformed parameters { vector[8] theta = mu + tau * theta_tilde; }
   model { mu ~ normal(0, 5); tau ~ cauchy(0, 5); theta_tilde ~ std_normal(); y ~ normal(theta, sigma); }
   generated quantities { vector[8] log_lik; matrix[2, 3] corners; }

   It rejects mu > 1000, as a Stan model that runs into an error does. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define J 8
#define DIM (J + 2)

int bs_major_version = 2, bs_minor_version = 9, bs_patch_version = 0;

static const double y[J] = {28, 8, -3, 7, -1, 1, 18, 12}, sigma[J] = {15, 10, 16, 11, 9, 11, 10, 18};
static const double half_log_2pi = 0.91893853320467274178;

static int fail(char **error, const char *message) {
  if (error) *error = strcpy(malloc(strlen(message) + 1), message);
  return -1;
}

void *bs_model_construct(const char *data, unsigned int seed, char **error) {
  if (strstr(data, "bad")) { fail(error, "bad data"); return NULL; }
  return calloc(1, 1);
}
void bs_model_destruct(void *model) { free(model); }
void bs_free_error_msg(char *error) { free(error); }
int bs_set_print_callback(void *callback, char **error) { return 0; }
const char *bs_name(const void *model) { return "eight_schools_model"; }
const char *bs_model_info(const void *model) { return "by hand"; }
void *bs_rng_construct(unsigned int seed, char **error) { return calloc(1, 1); }
void bs_rng_destruct(void *rng) { free(rng); }

#define PARAMETERS "mu,tau,theta_tilde.1,theta_tilde.2,theta_tilde.3,theta_tilde.4,theta_tilde.5,theta_tilde.6,theta_tilde.7,theta_tilde.8"
#define TRANSFORMED ",theta.1,theta.2,theta.3,theta.4,theta.5,theta.6,theta.7,theta.8"
#define GENERATED ",log_lik.1,log_lik.2,log_lik.3,log_lik.4,log_lik.5,log_lik.6,log_lik.7,log_lik.8" \
  ",corners.1.1,corners.2.1,corners.1.2,corners.2.2,corners.1.3,corners.2.3"

const char *bs_param_names(const void *model, bool tp, bool gq) {
  if (tp && gq) return PARAMETERS TRANSFORMED GENERATED;
  return tp ? PARAMETERS TRANSFORMED : gq ? PARAMETERS GENERATED : PARAMETERS;
}
const char *bs_param_unc_names(const void *model) { return PARAMETERS; }
int bs_param_num(const void *model, bool tp, bool gq) { return DIM + (tp ? J : 0) + (gq ? J + 6 : 0); }
int bs_param_unc_num(const void *model) { return DIM; }

int bs_param_constrain(const void *model, bool tp, bool gq, const double *x, double *out, void *rng, char **error) {
  double mu = x[0], tau = exp(x[1]);
  memcpy(out, x, DIM * sizeof(double));
  out[1] = tau;
  out += DIM;
  if (tp) for (int j = 0; j < J; j++) *out++ = mu + tau * x[2 + j];
  if (gq) {
    for (int j = 0; j < J; j++) {
      double z = (y[j] - mu - tau * x[2 + j]) / sigma[j];
      *out++ = -half_log_2pi - log(sigma[j]) - z * z / 2;
    }
    for (int column = 1; column <= 3; column++)
      for (int row = 1; row <= 2; row++) *out++ = 10 * row + column;
  }
  return 0;
}
int bs_param_unconstrain(const void *model, const double *theta, double *out, char **error) {
  memcpy(out, theta, DIM * sizeof(double));
  out[1] = log(theta[1]);
  return 0;
}
int bs_param_unconstrain_json(const void *model, const char *json, double *out, char **error) {
  return fail(error, "not in this library");
}
int bs_param_initialize(const void *model, const char *json, void *rng, double radius, int tries, bool print,
                        double *out, char **error) {
  return fail(error, "not in this library");
}

int bs_log_density_gradient(const void *model, bool propto, bool jacobian, const double *x, double *value,
                            double *gradient, char **error) {
  double mu = x[0], tau = exp(x[1]), total = 0, d_mu = -mu / 25, d_tau;
  if (mu > 1000) return fail(error, "normal_lpdf: Location parameter is not finite");
  total += -mu * mu / 50 - log1p(tau * tau / 25);
  d_tau = -2 * tau / (25 + tau * tau);
  for (int j = 0; j < J; j++) {
    double z = x[2 + j], r = (y[j] - mu - tau * z) / sigma[j];
    total += -z * z / 2 - r * r / 2;
    d_mu += r / sigma[j];
    d_tau += z * r / sigma[j];
    gradient[2 + j] = -z + tau * r / sigma[j];
    if (!propto) total += -2 * half_log_2pi - log(sigma[j]);
  }
  if (!propto) total += -half_log_2pi - log(5) + log(2) - log(5 * 3.14159265358979323846);
  gradient[0] = d_mu;
  gradient[1] = tau * d_tau + (jacobian ? 1 : 0);
  *value = total + (jacobian ? x[1] : 0);
  return 0;
}
int bs_log_density(const void *model, bool propto, bool jacobian, const double *x, double *value, char **error) {
  double gradient[DIM];
  return bs_log_density_gradient(model, propto, jacobian, x, value, gradient, error);
}
int bs_log_density_hessian(const void *model, bool propto, bool jacobian, const double *x, double *value,
                           double *gradient, double *hessian, char **error) {
  return fail(error, "not in this library");
}
int bs_log_density_hessian_vector_product(const void *model, bool propto, bool jacobian, const double *x,
                                          const double *v, double *value, double *product, char **error) {
  double at[DIM], up[DIM], down[DIM], step = 1e-5, unused;
  if (bs_log_density(model, propto, jacobian, x, value, error)) return -1;
  for (int i = 0; i < DIM; i++) at[i] = x[i] + step * v[i];
  if (bs_log_density_gradient(model, propto, jacobian, at, &unused, up, error)) return -1;
  for (int i = 0; i < DIM; i++) at[i] = x[i] - step * v[i];
  if (bs_log_density_gradient(model, propto, jacobian, at, &unused, down, error)) return -1;
  for (int i = 0; i < DIM; i++) product[i] = (up[i] - down[i]) / (2 * step);
  return 0;
}

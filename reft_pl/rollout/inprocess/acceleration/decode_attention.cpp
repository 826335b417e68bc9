// Attention of each row's newest tokens over its cached keys, reading only the tokens written so far.
//
// reft_pl/rollout/inprocess/acceleration/native_attention.py compiles it for one model, and defines
//   NUMBER  element type: float, or uint16_t for the bits of a bfloat16
//   GROUP   number of query heads that share a key head
//   WIDTH   head width, a multiple of LANES
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

constexpr int LANES = 16, PARTS = WIDTH / LANES;

template <int N> struct VectorOf { typedef float type __attribute__((vector_size(4 * N))); };
typedef VectorOf<LANES>::type Floats;
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

static inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
// A bfloat16 is the upper half of a float.
static inline Floats load(const uint16_t* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  return reinterpret_cast<Floats>(__builtin_convertvector(bits, Words) << 16);
}

static inline void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }
static inline void store(uint16_t* to, Floats x) {
  Words words = reinterpret_cast<Words>(x);
  Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;  // round to nearest even
  rounded = x == x ? rounded : Words{} + 0x7fc0;                 // NaN stays NaN
  Halves bits = __builtin_convertvector(rounded, Halves);
  std::memcpy(to, &bits, sizeof bits);
}

template <int N> static inline float sum(typename VectorOf<N>::type x) {
  if constexpr (N == 1) {
    return x[0];
  } else {
    typename VectorOf<N / 2>::type half[2];
    std::memcpy(half, &x, sizeof x);
    return sum<N / 2>(half[0] + half[1]);
  }
}

// exp(x) for x <= 0, with a relative error of about 1e-7 and a floor of 1e-38: 2^n e^r with |r| <= ln(2) / 2, and e^r by its
// Taylor polynomial.
static inline Floats exponential(Floats x) {
  typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
  x = x > -87.0f ? x : (x == x ? Floats{} - 87.0f : x);
  Floats shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  Floats n = shifted - 12582912.0f;
  Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln(2) in two parts
  Floats e = 1.0f + r * (1.0f + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
  Integers power = (__builtin_convertvector(n, Integers) + 127) << 23;
  return e * reinterpret_cast<Floats>(power);
}

// Prefetch a token's elements: rows of the cache are too short for the hardware prefetcher to detect the pattern.
static inline void prefetch(const NUMBER* token) {
  for (int p = 0; p < WIDTH; p += 64 / sizeof(NUMBER)) __builtin_prefetch(token + p);
}

// One token and key head: query [GROUP, WIDTH], keys and values [length, WIDTH]; scores is scratch space for GROUP * stride
// elements, where stride is length rounded up to a multiple of LANES.
static void attend(const NUMBER* query, const NUMBER* keys, const NUMBER* values, int64_t length, int64_t stride, float scaling,
                   float* scores, NUMBER* output) {
  Floats q[GROUP][PARTS];
  for (int g = 0; g < GROUP; ++g)
    for (int p = 0; p < PARTS; ++p) q[g][p] = load(query + g * WIDTH + p * LANES) * scaling;
  for (int64_t t = 0; t < length; ++t) {
    prefetch(keys + std::min(t + LANES, length - 1) * WIDTH);
    prefetch(values + t * WIDTH);
    Floats products[GROUP] = {};
    for (int p = 0; p < PARTS; ++p) {
      Floats key = load(keys + t * WIDTH + p * LANES);
      for (int g = 0; g < GROUP; ++g) products[g] += q[g][p] * key;
    }
    for (int g = 0; g < GROUP; ++g) scores[g * stride + t] = sum<LANES>(products[g]);
  }
  float totals[GROUP];
  for (int g = 0; g < GROUP; ++g) {
    float* row = scores + g * stride;
    for (int64_t t = length; t < stride; ++t) row[t] = -INFINITY;
    Floats highest = Floats{} - INFINITY, total = {};
    for (int64_t t = 0; t < stride; t += LANES) {
      Floats score = load(row + t);
      highest = highest > score ? highest : score;
    }
    for (int i = 1; i < LANES; ++i) highest[0] = highest[0] > highest[i] ? highest[0] : highest[i];
    for (int64_t t = 0; t < stride; t += LANES) {
      Floats weights = exponential(load(row + t) - highest[0]);
      store(row + t, weights);
      total += weights;
    }
    totals[g] = sum<LANES>(total);
  }
  Floats sums[GROUP][PARTS] = {};
  for (int64_t t = 0; t < length; ++t)
    for (int p = 0; p < PARTS; ++p) {
      Floats value = load(values + t * WIDTH + p * LANES);
      for (int g = 0; g < GROUP; ++g) sums[g][p] += scores[g * stride + t] * value;
    }
  for (int g = 0; g < GROUP; ++g)
    for (int p = 0; p < PARTS; ++p) store(output + g * WIDTH + p * LANES, sums[g][p] / totals[g]);
}

// query and output [tokens, heads * GROUP, WIDTH], keys and values [slots, heads, room, WIDTH]; rows [tokens] is each token's slot,
// with the tokens of a slot adjacent, and positions [tokens] the number of tokens before it in its slot.
extern "C" void decode_attention(const NUMBER* query, const NUMBER* keys, const NUMBER* values, const int64_t* rows,
                                 const int64_t* positions, NUMBER* output, int64_t tokens, int64_t heads, int64_t room,
                                 float scaling) {
  std::vector<int64_t> firsts;  // index of each slot's first token; one thread handles a whole slot, for locality
  for (int64_t n = 0; n < tokens; ++n)
    if (n == 0 || rows[n] != rows[n - 1]) firsts.push_back(n);
  const int64_t slots = firsts.size();
  firsts.push_back(tokens);
#pragma omp parallel
  {
    std::vector<float> scores(GROUP * (room + LANES));
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < slots * heads; ++item) {
      const int64_t head = item % heads;
      for (int64_t n = firsts[item / heads]; n < firsts[item / heads + 1]; ++n) {
        const int64_t length = positions[n] + 1, stride = (length + LANES - 1) / LANES * LANES;
        const int64_t of_query = (n * heads + head) * GROUP * WIDTH, of_keys = (rows[n] * heads + head) * room * WIDTH;
        attend(query + of_query, keys + of_keys, values + of_keys, length, stride, scaling, scores.data(), output + of_query);
      }
    }
  }
}

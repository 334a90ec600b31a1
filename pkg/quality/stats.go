// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// table is a paired 2x2 table of right and wrong answers.
type table struct {
	n      int // items
	both   int // right on both sides
	worse  int // b: base right, quantized wrong
	better int // c: base wrong, quantized right
}

// diff is the difference of accuracies, quantized minus base: (c-b)/n.
func (t table) diff() float64 { return float64(t.better-t.worse) / float64(t.n) }

// interval holds two one-sided bounds of a difference.
type interval struct{ lower, upper float64 }

// normalQuantile returns z with P(Z > z) = alpha.
func normalQuantile(alpha float64) float64 { return math.Sqrt2 * math.Erfinv(1-2*alpha) }

// tangoScore is the score statistic of H0: difference = delta, Tango (1998)
// equations 24 to 26 with his Delta = -delta. It falls as delta grows.
//
//	Z = (c - b - n delta) / sqrt(n (2 q + delta (1 - delta)))
//
// q is the maximum-likelihood estimate of P(worse) under H0: the larger root of
// 2n q^2 + B q + C = 0, B = -(b+c) + (2n + b - c) delta, C = -b delta (1-delta).
func tangoScore(t table, delta float64) float64 {
	n, b, c := float64(t.n), float64(t.worse), float64(t.better)
	num := c - b - n*delta
	if num == 0 {
		return 0 // also the 0/0 of a table without discordant items
	}
	q := largerRoot(2*n, -(b+c)+(2*n+b-c)*delta, -b*delta*(1-delta))
	variance := n * (2*q + delta*(1-delta))
	if variance <= 0 {
		return math.Copysign(math.Inf(1), num)
	}
	return num / math.Sqrt(variance)
}

// largerRoot solves a x^2 + b x + c = 0, a > 0, without cancellation. The
// discriminant is not negative but for rounding.
func largerRoot(a, b, c float64) float64 {
	root := math.Sqrt(math.Max(0, b*b-4*a*c))
	if b > 0 {
		return -2 * c / (b + root)
	}
	return (root - b) / (2 * a)
}

// tango inverts the score test: lower is where the statistic meets z, upper
// where it meets -z. Swapping worse and better mirrors the interval.
func tango(t table, alpha float64) interval {
	return interval{lower: tangoLower(t, alpha), upper: -tangoLower(t.mirrored(), alpha)}
}

func (t table) mirrored() table {
	t.both, t.worse, t.better = t.n-t.both-t.worse-t.better, t.better, t.worse
	return t
}

// tangoLower bisects to the last bit: the statistic is +Inf or large at -1, and
// 0 at the observed difference.
func tangoLower(t table, alpha float64) float64 {
	z := normalQuantile(alpha)
	low, high := -1.0, t.diff()
	for {
		mid := low + (high-low)/2
		if mid <= low || mid >= high {
			return low
		}
		if tangoScore(t, mid) > z {
			low = mid
		} else {
			high = mid
		}
	}
}

// wilson is the score interval of a single proportion (Wilson 1927).
func wilson(k, n int, z float64) interval {
	p, m, zz := float64(k)/float64(n), float64(n), z*z
	mid := (p + zz/(2*m)) / (1 + zz/m)
	half := z / (1 + zz/m) * math.Sqrt(p*(1-p)/m+zz/(4*m*m))
	return interval{lower: math.Max(0, mid-half), upper: math.Min(1, mid+half)}
}

// newcombe is method 10 of Newcombe (1998), Statistics in Medicine 17:2635: the
// Wilson intervals of both accuracies, joined with a continuity-corrected phi.
func newcombe(t table, alpha float64) interval {
	z := normalQuantile(alpha)
	right, base := t.both+t.better, t.both+t.worse
	p, q := float64(right)/float64(t.n), float64(base)/float64(t.n)
	wp, wq := wilson(right, t.n, z), wilson(base, t.n, z)
	phi := newcombePhi(t)
	join := func(a, b float64) float64 { return math.Sqrt(math.Max(0, a*a-2*phi*a*b+b*b)) }
	return interval{
		lower: p - q - join(p-wp.lower, wq.upper-q),
		upper: p - q + join(wp.upper-p, q-wq.lower),
	}
}

// newcombePhi is the correlation of the two answers: eh - fg, moved n/2 towards
// zero when positive, over the root of the product of the margins.
func newcombePhi(t table) float64 {
	e, f, g := float64(t.both), float64(t.better), float64(t.worse)
	h := float64(t.n) - e - f - g
	product := (e + f) * (g + h) * (e + g) * (f + h)
	if product == 0 {
		return 0
	}
	cross := e*h - f*g
	if cross > 0 {
		cross = math.Max(0, cross-float64(t.n)/2)
	}
	return cross / math.Sqrt(product)
}

// mcnemar is the one-sided exact p-value of "quantized is worse": with m = b+c
// discordant items and no harm, b is binomial (m, 1/2); it returns P(X >= b).
func mcnemar(worse, better int) float64 {
	m := worse + better
	if worse <= m-worse {
		return 1 - upperTail(m, m-worse+1) // P(X >= b) = 1 - P(X <= b-1), and the tails mirror
	}
	return upperTail(m, worse)
}

// upperTail is P(X >= k) for X binomial (m, 1/2), m/2 < k: the first term by
// log-gamma, each further one by the ratio of neighbours, which is below one.
func upperTail(m, k int) float64 {
	if k > m {
		return 0
	}
	term := math.Exp(logChoose(m, k) - float64(m)*math.Ln2)
	sum := term
	for ; k < m && term > sum*1e-18; k++ {
		term *= float64(m-k) / float64(k+1)
		sum += term
	}
	return sum
}

func logChoose(m, k int) float64 {
	a, _ := math.Lgamma(float64(m) + 1)
	b, _ := math.Lgamma(float64(k) + 1)
	c, _ := math.Lgamma(float64(m-k) + 1)
	return a - b - c
}

// holm returns the p-values adjusted by Holm's step-down (1979), in the order
// given: reject those at or below alpha, and the family-wise level holds.
func holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return 0
	})
	adjusted, least := make([]float64, len(p)), 0.0
	for rank, i := range order {
		least = math.Max(least, math.Min(1, p[i]*float64(len(p)-rank)))
		adjusted[i] = least
	}
	return adjusted
}

// The bootstrap's constants: anyone must draw the same resamples.
const (
	// Resamples is the number of bootstrap resamples.
	Resamples = 10_000
	// bootstrapSeed and bootstrapStream seed the PCG generator: "Sluice" and "gate" in ASCII.
	bootstrapSeed   = 0x536c75696365
	bootstrapStream = 0x67617465
)

// bootstrap gives the percentile interval of the mean over tasks of deltas/unit.
// Sums stay integers, so the result does not depend on the processor, and the
// draws do not depend on the values, so that the bounds never rise when a value
// falls. One draw is the high half of PCG's 64 bits times len(deltas).
func bootstrap(deltas []int, unit int, alpha float64) interval {
	pcg := rand.NewPCG(bootstrapSeed, bootstrapStream)
	sums := make([]int, Resamples)
	for i := range sums {
		sums[i] = resample(pcg, deltas)
	}
	slices.Sort(sums)
	rank := max(int(alpha*(Resamples+1)), 1)
	scale := float64(len(deltas)) * float64(unit)
	return interval{lower: float64(sums[rank-1]) / scale, upper: float64(sums[Resamples-rank]) / scale}
}

func resample(pcg *rand.PCG, deltas []int) int {
	sum := 0
	for range deltas {
		i, _ := bits.Mul64(pcg.Uint64(), uint64(len(deltas)))
		sum += deltas[i]
	}
	return sum
}

// studentT is the t interval of the mean of deltas/unit; ok is false below two
// tasks, where there is no variance.
func studentT(deltas []int, unit int, alpha float64) (iv interval, ok bool) {
	n := float64(len(deltas))
	if n < 2 {
		return interval{}, false
	}
	mean, squares := 0.0, 0.0
	for _, d := range deltas {
		mean += float64(d) / n
	}
	for _, d := range deltas {
		squares += (float64(d) - mean) * (float64(d) - mean)
	}
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(1 - alpha)
	half := t * math.Sqrt(squares/(n-1)/n)
	return interval{lower: (mean - half) / float64(unit), upper: (mean + half) / float64(unit)}, true
}

// clusterSE is the standard error of the mean of n differences that may be
// correlated within clusters (Miller 2024, arXiv 2411.00640, section 3.2):
// the root of the sum over clusters of (sum of deviations)^2, over n.
func clusterSE(clusters []table, n int, mean float64) float64 {
	sum := 0.0
	for _, c := range clusters {
		deviation := float64(c.better-c.worse) - float64(c.n)*mean
		sum += deviation * deviation
	}
	return math.Sqrt(sum) / float64(n)
}

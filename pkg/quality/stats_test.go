// SPDX-License-Identifier: Apache-2.0

// The statistics are tested from inside: they are not exported, and the oracles
// need them one by one.
package quality

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %.9g, want %.9g within %g", what, got, want, tolerance)
	}
}

// Published figures. Tango (1998) section 6.1, Table V: soft contact lenses, 43
// both effective, 1 by the standard only, margin 0.1. The others are printed
// outputs of R's PropCIs::scoreci.mp.
func TestTangoPublished(t *testing.T) {
	lenses := table{n: 44, both: 43, worse: 1}
	near(t, "statistic of Tango 6.1", tangoScore(lenses, -0.1), 1.709, 5e-4)
	near(t, "one-sided p of Tango 6.1", math.Erfc(tangoScore(lenses, -0.1)/math.Sqrt2)/2, 0.044, 5e-4)
	near(t, "lower 90 % limit of Tango 6.1", tango(lenses, 0.05).lower, -0.096, 5e-4)
	for _, tc := range []struct {
		n, worse, better    int
		alpha, lower, upper float64
	}{
		{618, 25, 28, 0.05, -0.0148, 0.0247},
		{549, 41, 48, 0.05, -0.0157, 0.0414},
		{1000, 60, 20, 0.025, -0.0584, -0.0231},
	} {
		iv := tango(table{n: tc.n, worse: tc.worse, better: tc.better}, tc.alpha)
		near(t, "lower", iv.lower, tc.lower, 5.1e-5)
		near(t, "upper", iv.upper, tc.upper, 5.1e-5)
	}
}

// The bound is where the score statistic meets z when the restricted likelihood
// is maximised by search instead of in closed form.
func TestTangoAgainstSearch(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		n := 1 + rng.IntN(500)
		tab := table{n: n, worse: rng.IntN(n + 1)}
		tab.better = rng.IntN(n - tab.worse + 1)
		for _, alpha := range []float64{0.05, 0.025, 0.001} {
			lower := tango(tab, alpha).lower
			if tab.worse == n {
				near(t, "bound of a table with all worse", lower, -1, 1e-12)
				continue
			}
			if got := searchedScore(tab, lower); math.Abs(got-normalQuantile(alpha)) > 2e-4 {
				t.Errorf("%+v alpha %g: searched score at the bound %.8f is %.6f, want %.6f", tab, alpha, lower, got, normalQuantile(alpha))
			}
		}
	}
}

// searchedScore maximises the restricted log-likelihood by ternary search.
func searchedScore(t table, delta float64) float64 {
	b, c, rest := float64(t.worse), float64(t.better), float64(t.n-t.worse-t.better)
	xlogy := func(x, y float64) float64 {
		if x == 0 {
			return 0
		}
		return x * math.Log(y)
	}
	like := func(q float64) float64 { return xlogy(b, q) + xlogy(c, q+delta) + xlogy(rest, 1-2*q-delta) }
	low, high := math.Max(0, -delta), (1-delta)/2
	for range 400 {
		m1, m2 := low+(high-low)/3, high-(high-low)/3
		if like(m1) < like(m2) {
			low = m1
		} else {
			high = m2
		}
	}
	n, q := float64(t.n), (low+high)/2
	return (c - b - n*delta) / math.Sqrt(n*(2*q+delta*(1-delta)))
}

func TestTangoShape(t *testing.T) {
	for _, tab := range []table{{n: 100}, {n: 100, worse: 100}, {n: 100, better: 100}, {n: 1, worse: 1}, {n: 14042, worse: 450, better: 380}, {n: MaxItems, worse: 1, better: MaxItems - 1}} {
		iv, mirrored := tango(tab, 0.05), tango(tab.mirrored(), 0.05)
		if !(iv.lower >= -1 && iv.lower <= tab.diff() && iv.upper >= tab.diff() && iv.upper <= 1) {
			t.Errorf("%+v: interval %+v does not hold the difference %g", tab, iv, tab.diff())
		}
		if iv.lower != -mirrored.upper || iv.upper != -mirrored.lower {
			t.Errorf("%+v: interval %+v is not the mirror of %+v", tab, iv, mirrored)
		}
	}
	// Without discordant items: delta^2 n = z^2 (-delta)(1+delta) (score of a zero count).
	z := normalQuantile(0.05)
	near(t, "bound of 100 equal pairs", tango(table{n: 100}, 0.05).lower, -z*z/(100+z*z), 1e-12)
	near(t, "McNemar's z at zero", tangoScore(table{n: 50, worse: 4, better: 12}, 0), 8/math.Sqrt(16), 1e-12)
}

// The worked example: significantly worse, and yet non-inferior at one point.
func TestWorkedExample(t *testing.T) {
	tab := table{n: 14042, worse: 450, better: 380}
	near(t, "difference", tab.diff(), -0.00498505, 1e-8)
	near(t, "bound", tango(tab, 0.05).lower, -0.0084, 5e-5)
	near(t, "McNemar p", mcnemar(450, 380), 0.0083, 5e-5)
}

// Newcombe (1998) Table III, (e, f, g, h) = (20, 12, 2, 16), 95 % two-sided.
func TestNewcombePublished(t *testing.T) {
	iv := newcombe(table{n: 50, both: 20, better: 12, worse: 2}, 0.025)
	near(t, "lower", iv.lower, 0.0562, 5e-5)
	near(t, "upper", iv.upper, 0.3292, 5e-5)
	all := newcombe(table{n: 50, both: 50}, 0.025)
	if !(all.lower < 0 && all.upper > 0) {
		t.Errorf("interval of 50 equal pairs is %+v, want one around 0", all)
	}
}

func TestMcNemarExact(t *testing.T) {
	for m := range 60 {
		for b := range m + 1 {
			near(t, "p", mcnemar(b, m-b), exactTail(m, b), 1e-12)
		}
	}
	near(t, "p of 11 of 11", mcnemar(11, 0), math.Pow(2, -11), 1e-16)
	near(t, "p of 520 of 1000", mcnemar(520, 480), exactTail(1000, 520), 1e-11)
	near(t, "p at the limit", mcnemar(MaxItems/2, MaxItems/2), 0.5+math.Exp(logChoose(MaxItems, MaxItems/2)-MaxItems*math.Ln2)/2, 1e-8)
}

// exactTail is P(X >= k), X binomial (m, 1/2), in integers.
func exactTail(m, k int) float64 {
	sum := new(big.Int)
	for i := k; i <= m; i++ {
		sum.Add(sum, new(big.Int).Binomial(int64(m), int64(i)))
	}
	p, _ := new(big.Rat).SetFrac(sum, new(big.Int).Lsh(big.NewInt(1), uint(m))).Float64()
	return p
}

// R: p.adjust(p, "holm").
func TestHolm(t *testing.T) {
	for _, tc := range []struct{ p, want []float64 }{
		{nil, []float64{}},
		{[]float64{0.01, 0.02, 0.03, 0.04}, []float64{0.04, 0.06, 0.06, 0.06}},
		{[]float64{0.04, 0.001, 0.9, 0.9}, []float64{0.12, 0.004, 1, 1}},
	} {
		if diff := cmp.Diff(tc.want, holm(tc.p), cmpopts.EquateApprox(0, 1e-12)); diff != "" {
			t.Errorf("holm(%v): %s", tc.p, diff)
		}
	}
}

func TestQuantiles(t *testing.T) {
	near(t, "z 0.05", normalQuantile(0.05), 1.6448536269514722, 1e-12)
	near(t, "z 0.025", normalQuantile(0.025), 1.959963984540054, 1e-12)
	// mean 2, sd 1, n 3: t(0.95, 2) = 2.919986 (any table), half = 2.919986/sqrt(3).
	iv, ok := studentT([]int{1, 2, 3}, 1, 0.05)
	near(t, "t lower", iv.lower, 2-2.919986/math.Sqrt(3), 1e-6)
	near(t, "t upper", iv.upper, 2+2.919986/math.Sqrt(3), 1e-6)
	if !ok {
		t.Error("studentT refused three tasks")
	}
	if _, ok := studentT([]int{1}, 1, 0.05); ok {
		t.Error("studentT accepted one task")
	}
}

func TestBootstrap(t *testing.T) {
	deltas := make([]int, 164)
	for i := range 40 {
		deltas[i*4] = i%7 - 3
	}
	first := bootstrap(deltas, 20, 0.05)
	if second := bootstrap(deltas, 20, 0.05); first != second {
		t.Errorf("bootstrap gave %+v, then %+v", first, second)
	}
	// Large samples: the percentile interval is close to the t interval.
	student, _ := studentT(deltas, 20, 0.05)
	near(t, "bootstrap lower", first.lower, student.lower, 5e-4)
	near(t, "bootstrap upper", first.upper, student.upper, 5e-4)
	if same := bootstrap(make([]int, 5), 1, 0.05); same != (interval{}) {
		t.Errorf("bootstrap of equal tasks is %+v, want 0", same)
	}
	// Computed by a second implementation of PCG-DXSM and the percentile rule, in
	// Python integers: another generator, seed, draw or rank moves these sums.
	got := bootstrap([]int{-30011, -17, 5, 0, 20023, 1009, -2003, 40, 7, 10007}, 4, 0.05)
	if diff := cmp.Diff([]float64{-62999.0 / 40, 58108.0 / 40}, []float64{got.lower, got.upper}); diff != "" {
		t.Errorf("bootstrap against the second implementation: %s", diff)
	}
}

// Two clusters of equal signs: perfectly correlated within, so the effective
// sample is two: SE = sqrt(2 * (5 * 1)^2) / 10.
func TestClusterSE(t *testing.T) {
	near(t, "SE", clusterSE([]table{{n: 5, better: 5}, {n: 5, worse: 5}}, 10, 0), math.Sqrt(50)/10, 1e-15)
}
